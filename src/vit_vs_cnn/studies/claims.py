"""Claims about ViTs and CNNs that a single run cannot decide, put to the test by the points of a study."""

from collections.abc import Sequence

from vit_vs_cnn.core.console import points
from vit_vs_cnn.report.claims import LEAST_ATTENTION, MOST_ATTENTION, Claim, verdict_of
from vit_vs_cnn.studies.leads import Lead, Place, difference_at
from vit_vs_cnn.studies.settings import IMAGES, axis_text
from vit_vs_cnn.studies.summary import Summary, along


def judge_study(summary: Summary) -> list[Claim]:
    """Judge what the axes of images and of the budget decide, of a transformer and a CNN; nothing without them."""
    pair = _transformer_and_cnn(summary)
    if pair is None:
        return []
    claims = []
    if ends := _ends(summary, IMAGES, pair):
        few, many = ends
        claims.append(
            _gap_closes("ViTs need more data: they are behind on small sets and gain with large ones.", pair, *ends)
        )
        verdict = verdict_of(holds=few[1].high < 0, refuted=few[1].low > 0)
        measured = f"{_text(pair, few)}; {_text(pair, many)}"
        claims.append(Claim("CNNs are for small sets.", "who leads with the fewest images", measured, verdict))
    if summary.budget_axis and (ends := _ends(summary, summary.budget_axis, pair)):
        claims.append(
            _gap_closes(
                "ViTs need more compute: they are behind on a small budget and gain with a larger one.", pair, *ends
            )
        )
    return claims


_End = tuple[str, Lead]


def _gap_closes(claim: str, pair: tuple[str, str], low: _End, high: _End) -> Claim:
    """Whether the difference grows in favour of the transformer from one end of an axis to the other.

    It holds where their intervals do not overlap, which is stricter than an interval of the change.
    """
    closes = low[1].high < min(0.0, high[1].low)
    verdict = verdict_of(holds=closes, refuted=high[1].high < low[1].low)
    measure = "difference of test accuracy at both ends of the axis, with intervals that do not overlap"
    return Claim(claim, measure, f"{_text(pair, low)}; {_text(pair, high)}", verdict)


def _text(pair: tuple[str, str], end: _End) -> str:
    where, lead = end
    difference = f"{points(lead.difference, sign=True)} ({points(lead.low)} to {points(lead.high)})"
    return f"{where}: {pair[0]} minus {pair[1]} {difference} points"


def _ends(summary: Summary, axis: str, pair: tuple[str, str]) -> tuple[_End, _End] | None:
    """The difference of the pair at both ends of an axis, at the last value of the others; None without both."""
    if len(summary.plan.axes.get(axis, ())) < 2:
        return None
    places = [place for place in along(axis, summary.places, summary.plan) if set(pair) <= set(place.contestants)]
    if len(places) < 2:
        return None
    first, last = (_end(place, axis, pair, summary.plan.confidence) for place in (places[0], places[-1]))
    return first, last


def _end(place: Place, axis: str, pair: tuple[str, str], confidence: float) -> _End:
    where = f"{place.train_images:,} images" if axis == IMAGES else axis_text(axis, place.values[axis])
    return where, difference_at(place, *pair, confidence)


def _transformer_and_cnn(summary: Summary) -> tuple[str, str] | None:
    """The contestant with the most of its operations in attention, and the first of those without attention."""
    shares = {
        replicate.contestant: replicate.attention
        for run in summary.results.done.values()
        for replicate in run.replicates
        if replicate.attention is not None
    }
    transformers = [name for name, share in shares.items() if share >= LEAST_ATTENTION]
    cnns: Sequence[str] = [name for name, share in shares.items() if share <= MOST_ATTENTION]
    return (max(transformers, key=lambda name: shares[name]), cnns[0]) if transformers and cnns else None
