"""Claims about ViTs and CNNs put to the test by the points of a study, among them those that no single run decides."""

import numpy as np

from vit_vs_cnn.core.console import points, points_between
from vit_vs_cnn.report.claims import (
    ATTENTION,
    EFFICIENCY,
    EXPLANATIONS,
    LARGE_SETS,
    LEAST_ATTENTION,
    LONG_RANGE,
    MORE_ACCURATE,
    MORE_COMPUTE,
    MORE_DATA,
    MOST_ATTENTION,
    REAL_TIME,
    SMALL,
    SMALL_SETS,
    Claim,
    more_parameters,
    slower_epochs,
    verdict_of,
)
from vit_vs_cnn.studies.leads import Lead, Place, difference_at
from vit_vs_cnn.studies.plan import Plan
from vit_vs_cnn.studies.results import Replicate
from vit_vs_cnn.studies.settings import EPOCHS, IMAGES, SECONDS, axis_text, point_text
from vit_vs_cnn.studies.summary import Summary, along, largest_place

_ENDS = "difference of test accuracy at both ends of the axis; that they differ where their intervals do not overlap"


def judge_study(summary: Summary) -> list[Claim]:
    """Put the claims to the test of the most transformer-like contestant and the best CNN; none without them."""
    place = largest_place(summary)
    if place is None:
        return []
    trainings = _trainings_at(place, summary)
    pair = _transformer_and_cnn(place, trainings)
    if pair is None:
        return []
    vit, cnn = pair
    lead = _difference(place, pair, summary.plan)
    more_accurate = verdict_of(holds=lead.low > 0, refuted=lead.high < 0 or lead.verdict == "equal")
    measured = f"{point_text(place.values)}: {_minus(pair, lead)}"
    parameters = trainings[vit][0].parameters / trainings[cnn][0].parameters
    return [
        Claim(MORE_ACCURATE, "difference of test accuracy with the most images and budget", measured, more_accurate),
        _slower_epochs(pair, trainings),
        more_parameters(vit, cnn, parameters),
        _catches_up(MORE_COMPUTE, summary, summary.budget_axis or EPOCHS, pair),
        _catches_up(MORE_DATA, summary, IMAGES, pair),
        _large_sets(summary, pair),
        _small_sets(summary, pair),
        *(_of_one_run(text) for text in (EFFICIENCY, REAL_TIME, LONG_RANGE, EXPLANATIONS, ATTENTION)),
    ]


_Pair = tuple[str, str]
_Trainings = dict[str, list[Replicate]]


def _trainings_at(place: Place, summary: Summary) -> _Trainings:
    """The trainings with the images and the settings of a place, whatever their budget, by contestant."""
    found: _Trainings = {}
    same = {axis: value for axis, value in place.values.items() if axis not in (EPOCHS, SECONDS)}
    for run in summary.plan.runs:
        if run.name in summary.results.done and same.items() <= run.values.items():
            for replicate in summary.results.done[run.name].replicates:
                found.setdefault(replicate.contestant, []).append(replicate)
    return found


def _transformer_and_cnn(place: Place, trainings: _Trainings) -> _Pair | None:
    """The contestant with the most of its operations in attention, and the best of those without attention."""
    shares = {name: trainings[name][0].attention for name in place.contestants}
    known = {name: share for name, share in shares.items() if share is not None}
    transformers = [name for name, share in known.items() if share >= LEAST_ATTENTION]
    cnns = [name for name, share in known.items() if share <= MOST_ATTENTION]
    if not transformers or not cnns:
        return None
    return max(transformers, key=known.__getitem__), max(cnns, key=lambda name: np.mean(place.accuracies(name)))


def _difference(place: Place, pair: _Pair, plan: Plan) -> Lead:
    return difference_at(place, *pair, plan.confidence, plan.margin)


def _minus(pair: _Pair, lead: Lead) -> str:
    difference = f"{points(lead.difference, sign=True)} points ({points_between(lead.low, lead.high)})"
    return f"{pair[0]} minus {pair[1]} {difference}"


def _slower_epochs(pair: _Pair, trainings: _Trainings) -> Claim:
    slow, fast = ([one.seconds_per_epoch for one in trainings[name]] for name in pair)
    ratio = float(np.mean(slow) / np.mean(fast))
    return slower_epochs(*pair, ratio, (min(slow) / max(fast), max(slow) / min(fast)))


def _ends(summary: Summary, axis: str, pair: _Pair) -> tuple[Place, Place] | None:
    """The places of the pair at both ends of an axis, at the last value of the others; None without both."""
    if len(summary.plan.axes.get(axis, ())) < 2:
        return None
    places = [place for place in along(axis, summary.places, summary.plan) if set(pair) <= set(place.contestants)]
    return (places[0], places[-1]) if len(places) > 1 else None


def _catches_up(text: str, summary: Summary, axis: str, pair: _Pair) -> Claim:
    """Whether the transformer is behind at the lower end of an axis, and less so at the upper end."""
    ends = _ends(summary, axis, pair)
    if ends is None:
        return _of_an_axis(text, axis)
    low, high = (_difference(place, pair, summary.plan) for place in ends)
    verdict = verdict_of(
        holds=low.high < min(0.0, high.low),
        # Not behind by what counts, or further behind with more.
        refuted=low.low > -summary.plan.margin or high.high < low.low,
    )
    measured = "; ".join(
        f"{_where(place, axis)}: {_minus(pair, lead)}" for place, lead in zip(ends, (low, high), strict=True)
    )
    return Claim(text, _ENDS, measured, verdict)


def _large_sets(summary: Summary, pair: _Pair) -> Claim:
    ends = _ends(summary, IMAGES, pair)
    if ends is None:
        return _of_an_axis(LARGE_SETS, IMAGES)
    most, lead = ends[1], _difference(ends[1], pair, summary.plan)
    verdict = verdict_of(holds=lead.low > 0, refuted=lead.high < 0 or lead.verdict == "equal")
    measured = f"{_where(most, IMAGES)}: {_minus(pair, lead)}"
    return Claim(LARGE_SETS, "who leads with the most images that were measured", measured, verdict)


def _small_sets(summary: Summary, pair: _Pair) -> Claim:
    ends, measure = _ends(summary, IMAGES, pair), f"who leads with the fewest images, at most {SMALL:,}"
    if ends is None:
        return _of_an_axis(SMALL_SETS, IMAGES)
    fewest = ends[0]
    if fewest.train_images > SMALL:
        return Claim(SMALL_SETS, measure, f"{fewest.train_images:,} images are no small set", "not measured here")
    lead = _difference(fewest, pair, summary.plan)
    verdict = verdict_of(holds=lead.high < 0, refuted=lead.low > 0 or lead.verdict == "equal")
    return Claim(SMALL_SETS, measure, f"{_where(fewest, IMAGES)}: {_minus(pair, lead)}", verdict)


def _where(place: Place, axis: str) -> str:
    return f"{place.train_images:,} images" if axis == IMAGES else axis_text(axis, place.values[axis])


def _of_an_axis(text: str, axis: str) -> Claim:
    return Claim(text, f"the axis {axis}", f"two values of the axis {axis} measure it", "not measured here")


def _of_one_run(text: str) -> Claim:
    measured = "vit-vs-cnn run with the settings of a point, which plan.json has, measures it"
    return Claim(text, "the report of a run", measured, "not measured here")
