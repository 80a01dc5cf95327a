"""Claims about ViTs and CNNs put to the test by the points of a study, among them those that no single run decides."""

import shlex
from dataclasses import dataclass

import numpy as np

from vit_vs_cnn.core.console import points, points_between
from vit_vs_cnn.evaluation.metrics import is_near_chance
from vit_vs_cnn.report.answer import listed
from vit_vs_cnn.report.claims import (
    ATTENTION,
    EFFICIENCY,
    EXPLANATIONS,
    HYBRID_FROM,
    INDUCTIVE_BIAS,
    LARGE_SETS,
    LEAST_ATTENTION,
    LONG_RANGE,
    MORE_ACCURATE,
    MORE_COMPUTE,
    MORE_DATA,
    REAL_TIME,
    SMALL,
    SMALL_SETS,
    Claim,
    Verdict,
    best_of_each,
    more_parameters,
    of_trainings,
    slower_epochs,
    verdict_of,
)
from vit_vs_cnn.studies.leads import Lead, Place, difference_at
from vit_vs_cnn.studies.plan import Plan
from vit_vs_cnn.studies.results import Replicate
from vit_vs_cnn.studies.settings import EPOCHS, IMAGES, axis_text, point_text
from vit_vs_cnn.studies.summary import Summary, along, largest_place, trainings_at

_ENDS = "difference of test accuracy at both ends of the axis; that they differ where their intervals do not overlap"


def judge_study(summary: Summary) -> list[Claim]:
    """Put the claims to the test of the best transformer and the best CNN; none without them."""
    place = largest_place(summary)
    if place is None:
        return []
    trainings = trainings_at(place, summary)
    pair = _transformer_and_cnn(place, trainings)
    if pair is None:
        return []
    vit, cnn = pair
    found = _difference(place, pair, summary.plan)
    measured = f"{point_text(place.values)}: {found.text}"
    parameters = trainings[vit][0].parameters / trainings[cnn][0].parameters
    return [
        Claim(MORE_ACCURATE, "difference of test accuracy with the most images and budget", measured, _is_ahead(found)),
        _slower_epochs(pair, trainings),
        more_parameters(vit, cnn, parameters),
        _catches_up(MORE_COMPUTE, summary, summary.budget_axis or EPOCHS, pair),
        _catches_up(MORE_DATA, summary, IMAGES, pair),
        _inductive_bias(summary, vit, trainings),
        _large_sets(summary, pair),
        _small_sets(summary, pair),
        *_of_one_run(place, summary.plan),
    ]


_Pair = tuple[str, str]
_Trainings = dict[str, list[Replicate]]


def _transformer_and_cnn(place: Place, trainings: _Trainings) -> _Pair | None:
    """The best transformer and the best CNN at a place, of those whose operations are known."""
    first = {name: trainings[name][0] for name in place.contestants}
    operations = {name: (one.attention, one.convolutions) for name, one in first.items() if one.attention is not None}
    return best_of_each(operations, {name: float(np.mean(place.accuracies(name))) for name in first})


@dataclass(frozen=True)
class _Difference:
    """How far the first of a pair is ahead at a place, in words too, and who of both learned next to nothing there."""

    lead: Lead
    text: str
    near_chance: list[str]


def _difference(place: Place, pair: _Pair, plan: Plan) -> _Difference:
    lead = difference_at(place, *pair, plan.confidence, plan.margin)
    accuracies = {name: place.accuracies(name) for name in pair}
    near_chance = [name for name, found in accuracies.items() if is_near_chance(float(np.mean(found)), plan.classes)]
    text = f"{pair[0]} minus {pair[1]} {points(lead.difference, sign=True)} points"
    text += f" ({points_between(lead.low, lead.high)}){of_trainings(max(map(len, accuracies.values())))}"
    text += f", {listed(near_chance)} hardly better than chance" if near_chance else ""
    return _Difference(lead, text, near_chance)


def _is_ahead(found: _Difference, sign: int = 1) -> Verdict:
    """Whether the first is better, or with `sign` -1 the second; that both are practically equal refutes it.

    Two that learned next to nothing say nothing of what others would learn.
    """
    lead, known = found.lead, len(found.near_chance) < 2
    ahead = known and lead.verdict == "better" and sign * lead.difference > 0
    return verdict_of(holds=ahead, refuted=known and lead.verdict != "undecided")


def _slower_epochs(pair: _Pair, trainings: _Trainings) -> Claim:
    slow, fast = ([one.seconds_per_epoch for one in trainings[name]] for name in pair)
    ratio = float(np.mean(slow) / np.mean(fast))
    return slower_epochs(*pair, ratio, (min(slow) / max(fast), max(slow) / min(fast)))


def _ends(summary: Summary, axis: str, pair: _Pair) -> tuple[Place, Place] | None:
    """The places of the pair at both ends of an axis, at the reference of the others; None without both."""
    if len(summary.plan.axes.get(axis, ())) < 2:
        return None
    places = [place for place in along(axis, summary.places, summary.plan) if set(pair) <= set(place.contestants)]
    return (places[0], places[-1]) if len(places) > 1 else None


def _catches_up(text: str, summary: Summary, axis: str, pair: _Pair) -> Claim:
    """Whether the transformer is behind at the lower end of an axis, and less so at the upper end."""
    ends = _ends(summary, axis, pair)
    if ends is None:
        return _of_an_axis(text, axis, summary.plan)
    found = [_difference(place, pair, summary.plan) for place in ends]
    low, high = (one.lead for one in found)
    verdict = verdict_of(
        # One that learned next to nothing at the lower end alone is behind; elsewhere that hides who would be.
        holds=_is_ahead(found[0], sign=-1) == "holds here" and low.high < high.low and not found[1].near_chance,
        # Not behind by what counts, or further behind with more.
        refuted=not any(one.near_chance for one in found) and (low.low > -summary.plan.margin or high.high < low.low),
    )
    measured = "; ".join(f"{_where(place, axis)}: {one.text}" for place, one in zip(ends, found, strict=True))
    return Claim(text, _ENDS, measured, verdict)


def _inductive_bias(summary: Summary, vit: str, trainings: _Trainings) -> Claim:
    """Whether it is convolutions in front of attention that a transformer lacks with few images, and less with more."""
    convolutions = {
        name: found[0].convolutions
        for name, found in trainings.items()
        if (found[0].attention or 0.0) >= LEAST_ATTENTION
    }
    hybrid = max(convolutions, key=convolutions.__getitem__)
    if not convolutions[vit] < HYBRID_FROM <= convolutions[hybrid]:
        what = "a hybrid, which has convolutions in front of its attention, among the contestants measures it"
        return Claim(INDUCTIVE_BIAS, "the axis images, for a ViT and a hybrid", what, "not measured here")
    return _catches_up(INDUCTIVE_BIAS, summary, IMAGES, (vit, hybrid))


def _large_sets(summary: Summary, pair: _Pair) -> Claim:
    ends = _ends(summary, IMAGES, pair)
    if ends is None:
        return _of_an_axis(LARGE_SETS, IMAGES, summary.plan)
    most, measure = ends[1], f"who leads with the most images, at least {SMALL:,}"
    if most.train_images < SMALL:
        return Claim(LARGE_SETS, measure, f"{most.train_images:,} images are no large set", "not measured here")
    found = _difference(most, pair, summary.plan)
    return Claim(LARGE_SETS, measure, f"{_where(most, IMAGES)}: {found.text}", _is_ahead(found))


def _small_sets(summary: Summary, pair: _Pair) -> Claim:
    ends, measure = _ends(summary, IMAGES, pair), f"who leads with the fewest images, at most {SMALL:,}"
    if ends is None:
        return _of_an_axis(SMALL_SETS, IMAGES, summary.plan)
    fewest = ends[0]
    if fewest.train_images > SMALL:
        return Claim(SMALL_SETS, measure, f"{fewest.train_images:,} images are no small set", "not measured here")
    found = _difference(fewest, pair, summary.plan)
    return Claim(SMALL_SETS, measure, f"{_where(fewest, IMAGES)}: {found.text}", _is_ahead(found, sign=-1))


def _where(place: Place, axis: str) -> str:
    at = f"{place.train_images:,} images" if axis == IMAGES else axis_text(axis, place.values[axis])
    others = {other: value for other, value in place.values.items() if other != axis}
    return f"{at}, {point_text(others)}" if others else at


def _of_an_axis(text: str, axis: str, plan: Plan) -> Claim:
    given = next(iter(plan.axes.get(axis, ())), plan.runs[-1].epochs)
    values = "[0.1, 1.0]" if axis == IMAGES else f"[{given}, {4 * float(given or 1):g}]"
    measured = f"vit-vs-cnn study {plan.given}, with {axis}: {values} among its axes, measures it"
    return Claim(text, f"the axis {axis}", measured, "not measured here")


def _of_one_run(place: Place, plan: Plan) -> list[Claim]:
    """What the report of a whole run of a place decides; with a budget in seconds no run has several contestants."""
    runs = (run for run in plan.runs if place.values.items() <= run.values.items() and len(run.contestants) > 1)
    run, command = next(runs, None), "vit-vs-cnn run with all contestants"
    if run is not None:
        preset = ["--preset", plan.preset] if plan.preset else []
        overrides = [part for override in run.overrides for part in ("--set", override)]
        command = shlex.join(["vit-vs-cnn", "run", *preset, "--name", run.name, *overrides])
    measured = [f"{command} measures it", *["the same run measures it"] * 4]
    texts = (EFFICIENCY, REAL_TIME, LONG_RANGE, EXPLANATIONS, ATTENTION)
    return [
        Claim(text, "the report of a run", what, "not measured here")
        for text, what in zip(texts, measured, strict=True)
    ]
