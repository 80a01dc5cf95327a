"""A study's answer in words and numbers: who leads with these images and this budget, and where that changes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from vit_vs_cnn.core.console import duration, points
from vit_vs_cnn.evaluation.metrics import is_near_chance
from vit_vs_cnn.report.answer import (
    conditions_sentence,
    dependent_images,
    listed,
    relations_of,
    too_few_images,
    untuned_sentences,
    what_it_takes,
)
from vit_vs_cnn.studies.curves import Crossing, LearningCurves, crossing_sentence, find_crossing, fit_curves
from vit_vs_cnn.studies.leads import Lead, Place, lead_at, places_of
from vit_vs_cnn.studies.plan import Plan
from vit_vs_cnn.studies.results import Replicate, Results
from vit_vs_cnn.studies.settings import EPOCHS, IMAGES, SECONDS, AxisValue, axis_text, point_text

FEWEST_SIZES = 3
# A point with at least this part of the optimizer steps has as many.
_AS_MANY_STEPS = 0.95


@dataclass(frozen=True)
class Summary:
    """What the measured places say.

    `slice` are the places along the axis `images` with the largest budget and the last value of each other axis, empty
    without that axis. `curves` are fitted to them where there are enough, `crossings` are of each pair of contestants.
    """

    results: Results
    places: tuple[Place, ...]
    leads: tuple[Lead | None, ...]
    slice: tuple[Place, ...]
    curves: LearningCurves | None
    crossings: tuple[Crossing, ...]

    @property
    def plan(self) -> Plan:
        """What was planned."""
        return self.results.plan

    @property
    def budget_axis(self) -> str | None:
        """The axis that is a budget, None without one."""
        return next((axis for axis in self.plan.axes if axis in (EPOCHS, SECONDS)), None)


def summarize(results: Results) -> Summary:
    """Compare the contestants at every place, and fit their learning curves."""
    places, confidence = places_of(results), results.plan.confidence
    sizes = along(IMAGES, places, results.plan) if IMAGES in results.plan.axes else []
    curves = _curves(sizes, results.plan)
    crossings = () if curves is None else _crossings(curves, confidence)
    leads = tuple(lead_at(place, confidence, results.plan.margin) for place in places)
    return Summary(results, tuple(places), leads, tuple(sizes), curves, crossings)


def answer(summary: Summary) -> str:
    """The sentence that a person can act on, about the most images and the largest budget that were measured."""
    found = _largest(summary)
    if found is None:
        return "Nothing can be said yet: at no point of the study were two contestants measured."
    place, lead = found
    trainings = ", in this one training of each" if lead.of_one_training else ""
    undecided = [one.pair for one in lead.all if one.pair is not None and one.verdict == "undecided"]
    sentences = [
        f"With {_conditions(summary, place)}{trainings}: {_lead_text(lead)}.",
        what_it_takes(undecided).strip(),
    ]
    pair = {lead.leader, lead.rival}
    sentences += [
        crossing_sentence(crossing, summary.curves)
        for crossing in summary.crossings
        if summary.curves is not None and {crossing.first, crossing.second} == pair
    ]
    if summary.results.open:
        sentences.append(f"{len(summary.results.open)} of {len(summary.plan.runs)} runs have no result.")
    return " ".join(filter(None, sentences))


def weaknesses(summary: Summary) -> list[str]:
    """What the study cannot say, by rule; of the place that its answer is about also what a run names of its own."""
    plan, replicates = summary.plan, [found for run in summary.results.done.values() for found in run.replicates]
    sentences = []
    if any(len(run.seeds) == 1 for run in plan.runs) and all(len(place.splits) == 1 for place in summary.places):
        sentences.append("One seed: intervals hold the chance of test images only, not that of training.")
    collapsed = [one.contestant for one in replicates if one.collapsed]
    if collapsed:
        counts = f"Of {len(replicates)} trainings some collapsed, which says nothing of the architecture"
        sentences.append(f"{counts}: {_counted(collapsed)}.")
    sentences += _still_rising(replicates) + _of_the_answer(summary)
    sentences += [
        f"{name} is hardly better than chance with {place.train_images:,} images, which bends its learning curve."
        for name in (summary.curves.curves if summary.curves else ())
        for place in summary.slice
        if is_near_chance(float(np.mean(place.accuracies(name))), plan.classes)
    ]
    sizes = {found.test_images for found in replicates}
    if len(sizes) > 1:
        sentences.append("The points were not measured on the same test images.")
    if summary.curves is None and IMAGES in plan.axes:
        sentences.append(f"A learning curve is fitted from {FEWEST_SIZES} sizes of the same test set on.")
    return sentences


def _still_rising(replicates: Sequence[Replicate]) -> list[str]:
    """Which trainings were still rising; a single epoch cannot rise, and is the least training of all."""
    several = [one for one in replicates if one.epochs > 1]
    rising, single = [one.contestant for one in several if one.still_rising], len(replicates) - len(several)
    sentences = []
    if rising:
        of = f"Of {len(several)} trainings{' of more than one epoch' if single else ''}"
        sentences.append(f"{of} some were still rising in their last epoch, more may help: {_counted(rising)}.")
    if single:
        sentences.append(f"{single} of {len(replicates)} trainings had one epoch, which cannot rise: more may help.")
    return sentences


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{names.count(name)} of {name}" for name in dict.fromkeys(names))


def _of_the_answer(summary: Summary) -> list[str]:
    """What weakens the answer as it would that of a run: tuning, sizes, pretraining, groups, few test images."""
    found = _largest(summary)
    if found is None:
        return []
    (place, lead), done = found, summary.results.done
    runs = [run for run in summary.plan.runs if place.values.items() <= run.values.items()]
    first = {name: trainings[0] for name, trainings in trainings_at(place, summary).items()}
    conditions = conditions_sentence(
        {name: training.pretraining_images for name, training in first.items()},
        {name: training.parameters for name, training in first.items()},
    )
    findings = next(done[run.name].findings for run in runs if run.name in done)
    return [
        *([] if any(run.trials for run in runs) else untuned_sentences(summary.plan.contestants)),
        *([conditions] if conditions else []),
        *dependent_images(findings),
        *too_few_images([one.pair for one in lead.all if one.pair is not None]),
    ]


def trainings_at(place: Place, summary: Summary) -> dict[str, list[Replicate]]:
    """The trainings with the images and the settings of a place, whatever their budget, by contestant."""
    found: dict[str, list[Replicate]] = {}
    same = {axis: value for axis, value in place.values.items() if axis not in (EPOCHS, SECONDS)}
    for run in summary.plan.runs:
        if run.name in summary.results.done and same.items() <= run.values.items():
            for replicate in summary.results.done[run.name].replicates:
                found.setdefault(replicate.contestant, []).append(replicate)
    return found


def reference_text(summary: Summary) -> str:
    """At which values of the other axes the figures over images are drawn; empty without others."""
    others = {axis: value for axis, value in summary.slice[0].values.items() if axis != IMAGES} if summary.slice else {}
    return f" at {point_text(others)}" if others else ""


def trainings_text(summary: Summary) -> str:
    """That a lead is one of the trainings at hand, where each contestant had one; else empty."""
    if not any(lead is not None and lead.of_one_training for lead in summary.leads):
        return ""
    return (
        "One training of each: intervals and confidences are of these trainings alone, others may have another order."
    )


def same_text(plan: Plan) -> str:
    """What a smaller part of the images was trained for."""
    if SECONDS in plan.axes:
        return "With the same budget fewer images have more epochs, as many as take those seconds."
    budget = " and budget" if EPOCHS in plan.axes else ""
    if plan.same == "epochs":
        of = " of a budget" if budget else ""
        return f"Every point{of} has the same number of epochs, so fewer images make fewer optimizer steps."
    as_many = (
        f"Fewer images have more epochs, so that every point makes about the optimizer steps of all images{budget}"
    )
    short = [run for run in plan.runs if run.steps_share < _AS_MANY_STEPS]
    if not short:
        return f"{as_many}."
    shares: dict[int, list[float]] = {}
    for run in short:
        shares.setdefault(run.train_images, []).append(100 * run.steps_share)
    listed = ", ".join(f"{images:,} images {_range(found)} %" for images, found in shares.items())
    return (
        f"{as_many}; max_epochs leaves fewer: {listed} of them. What these points lack is training as well as images."
    )


def _range(values: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys(f"{value:.0f}" for value in (min(values), max(values))))


def along(axis: str, places: Iterable[Place], plan: Plan) -> list[Place]:
    """The places at the reference of every axis but this one, ordered by its number."""
    chosen = [place for place in places if is_reference(place, plan, (axis,))]
    return sorted(chosen, key=lambda place: float(place.values[axis] or 0))


def is_reference(place: Place, plan: Plan, but: Sequence[str]) -> bool:
    """Whether a place has the most images, the largest budget and the last value of any axis that is not in `but`."""

    def reference(axis: str) -> AxisValue:
        values = plan.axes[axis]
        return max(values, key=lambda value: float(value or 0)) if axis in (IMAGES, EPOCHS, SECONDS) else values[-1]

    return all(value == reference(axis) for axis, value in place.values.items() if axis not in but)


def _curves(sizes: list[Place], plan: Plan) -> LearningCurves | None:
    """The learning curves of those measured in all places, where these have one and the same test set."""
    tests = {split.test_digest for place in sizes for split in place.splits}
    complete = [name for name in plan.contestants if all(name in place.contestants for place in sizes)]
    if len({place.train_images for place in sizes}) < FEWEST_SIZES or len(tests) > 1 or not complete:
        return None
    correct = {name: [place.splits[0].correct[name] for place in sizes] for name in complete}
    images = np.array([place.train_images for place in sizes], float)
    return fit_curves(images, correct, sizes[0].splits[0].groups)


def _crossings(curves: LearningCurves, confidence: float) -> tuple[Crossing, ...]:
    return tuple(find_crossing(curves, one, other, confidence) for one, other in combinations(curves.curves, 2))


def largest_place(summary: Summary) -> Place | None:
    """The place that the answer is about, None where two contestants were measured nowhere."""
    found = _largest(summary)
    return None if found is None else found[0]


def _largest(summary: Summary) -> tuple[Place, Lead] | None:
    """The place with the most images, of these the one with the largest budget, of these the last."""
    budget = summary.budget_axis
    measured = [(place, lead) for place, lead in zip(summary.places, summary.leads, strict=True) if lead is not None]
    return max(
        enumerate(measured),
        key=lambda item: (item[1][0].train_images, float(item[1][0].values.get(budget or "") or 0), item[0]),
        default=(0, None),
    )[1]


def _conditions(summary: Summary, place: Place) -> str:
    """The images and the budget of a place, and what else distinguishes it."""
    whole = summary.plan.images
    parts = [
        f"your {whole:,} images" if place.train_images == whole else f"{place.train_images:,} of your {whole:,} images"
    ]
    if SECONDS in place.values:
        parts.append(f"{duration(float(place.values[SECONDS] or 0))} of training on this machine")
    else:
        seconds = max(place.seconds(name) for name in place.contestants)
        epochs = " or ".join(dict.fromkeys(str(place.epochs(name)) for name in place.contestants))
        parts.append(f"{epochs} epochs ({duration(seconds)} of training on this machine)")
    others = {axis: value for axis, value in place.values.items() if axis not in (IMAGES, EPOCHS, SECONDS)}
    return " and ".join(parts) + "".join(f", {axis_text(axis, value)}" for axis, value in others.items())


def _lead_text(lead: Lead) -> str:
    if lead.verdict == "better":
        return f"{lead.leader}, by {listed([f'{_by(one)} over {one.rival}' for one in lead.all])}"
    verdicts = {one.rival: one.verdict for one in lead.all}
    relations = f"; {lead.leader} is {relations_of(verdicts)}" if lead.others else ""
    if lead.verdict == "equal":
        within = f"within {100 * lead.margin:g} point{'' if lead.margin == 0.01 else 's'}"
        of_both = f"{lead.leader} and {lead.rival} are practically equal, {within}"
        return f"{of_both}: {lead.leader} is ahead by {_by(lead)}{relations}"
    return f"cannot be told from this, {lead.leader} is ahead of {lead.rival} by {_by(lead)}{relations}"


def _by(lead: Lead) -> str:
    return f"{points(lead.difference)} points ({points(lead.low)} to {points(lead.high)})"
