"""Who leads at each point of a study, by how much and how surely; points of several splits are one place."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from vit_vs_cnn.evaluation.clusters import Groups
from vit_vs_cnn.evaluation.pairs import PairedComparison, compare_all_pairs
from vit_vs_cnn.evaluation.replicates import Correct, repeated_splits_interval
from vit_vs_cnn.studies.results import Replicate, Results, RunResult
from vit_vs_cnn.studies.settings import SPLIT_SEED, Values


@dataclass(frozen=True)
class Split:
    """What was measured at a place with one split of the data: bool (S, N) of each contestant's trainings."""

    correct: dict[str, Correct]
    groups: Groups | None
    train_images: int
    test_digest: str
    seconds: dict[str, float]
    epochs: dict[str, int]


@dataclass(frozen=True)
class Place:
    """A point without `data.split_seed`, and its splits; several where that is an axis."""

    values: Values
    splits: tuple[Split, ...]

    @property
    def train_images(self) -> int:
        """How many images were trained on, the mean over the splits."""
        return round(float(np.mean([split.train_images for split in self.splits])))

    def accuracies(self, contestant: str) -> list[float]:
        """The accuracy of each training of a contestant."""
        return [float(row.mean()) for split in self.splits for row in split.correct.get(contestant, ())]

    def seconds(self, contestant: str) -> float:
        """The mean seconds of a contestant's trainings."""
        return float(np.mean([split.seconds[contestant] for split in self.splits if contestant in split.seconds]))

    def epochs(self, contestant: str) -> int:
        """The epochs of a contestant's trainings."""
        return next(split.epochs[contestant] for split in self.splits if contestant in split.epochs)

    @property
    def contestants(self) -> list[str]:
        """Those that every split has measured."""
        return [name for name in self.splits[0].correct if all(name in split.correct for split in self.splits)]


@dataclass(frozen=True)
class Lead:
    """The contestant with the higher mean accuracy, another one, and how far it is ahead, with the interval.

    `sure` is the confidence that it is ahead at all; differences below `margin` are practically none. `pair` is what a
    run would say of the two, None of several splits, which no run has. `others` are its leads over further contestants.
    """

    leader: str
    rival: str
    difference: float
    low: float
    high: float
    sure: float
    margin: float
    pair: PairedComparison | None = None
    others: tuple["Lead", ...] = ()

    @property
    def all(self) -> tuple["Lead", ...]:
        """This one and that over each further contestant."""
        return (self, *self.others)

    @property
    def of_one_training(self) -> bool:
        """Whether each was trained once, so that nothing is known of other trainings."""
        return self.pair is not None and self.pair.first_seeds == self.pair.second_seeds == 1

    @property
    def sure_text(self) -> str:
        """The confidence for people, which is never all."""
        return "> 99 %" if self.sure > 0.99 else f"{100 * self.sure:.0f} %"

    @property
    def verdict(self) -> Literal["better", "equal", "undecided"]:
        """Whether one is better beyond doubt, or both are practically equal; as a run judges, where it could."""
        if self.pair is not None:
            return self.pair.verdict
        if self.low > 0 or self.high < 0:
            return "better"
        return "equal" if -self.margin < self.low and self.high < self.margin else "undecided"


def places_of(results: Results) -> list[Place]:
    """The measured places in the order of the plan; a place whose splits all failed is not among them."""

    def place(values: Values) -> str:
        return json.dumps({axis: value for axis, value in values.items() if axis != SPLIT_SEED})

    measured = [run for run in results.plan.runs if run.name in results.done]
    order = {key: number for number, key in enumerate(dict.fromkeys(place(run.values) for run in measured))}
    measured.sort(key=lambda run: order[place(run.values)])
    places = []
    for _, runs in groupby(measured, lambda run: place(run.values)):
        of_place = list(runs)
        splits = []
        for _, parts in groupby(of_place, lambda run: run.values.get(SPLIT_SEED)):
            splits.append(_split([results.done[run.name] for run in parts]))
        values = {axis: value for axis, value in of_place[0].values.items() if axis != SPLIT_SEED}
        places.append(Place(values, tuple(splits)))
    return places


def lead_at(place: Place, confidence: float, margin: float) -> Lead | None:
    """Who leads at a place, over whom it is least sure; None where fewer than two contestants were measured."""
    means = {name: float(np.mean(place.accuracies(name))) for name in place.contestants}
    if len(means) < 2:
        return None
    leader, *behind = sorted(means, key=lambda name: -means[name])
    leads = [difference_at(place, leader, other, confidence, margin) for other in behind]
    # One that is not better than each does not lead beyond doubt, and the next by its mean may vary least.
    weakest = min(leads, key=lambda lead: (lead.verdict == "better", lead.sure))
    return replace(weakest, others=tuple(lead for lead in leads if lead is not weakest))


def difference_at(place: Place, first: str, second: str, confidence: float, margin: float) -> Lead:
    """How far `first` is ahead of `second` at a place.

    Of one split as a run judges its pairs, with a test that allows for how many there are; of several by Nadeau and
    Bengio's interval, since repeated splits share images.
    """
    if len(place.splits) == 1:
        split, names = place.splits[0], dict.fromkeys((first, second, *place.contestants))
        correct = {name: split.correct[name] for name in names}
        pair = compare_all_pairs(correct, confidence, margin, split.groups)[0]
        doubt = pair.adjusted_p_value / 2
        sure = 1 - doubt if pair.difference > 0 else doubt
        return Lead(first, second, pair.difference, pair.low, pair.high, sure, margin, pair)
    differences = np.array([split.correct[first].mean() - split.correct[second].mean() for split in place.splits])
    test_images = round(float(np.mean([split.correct[first].shape[1] for split in place.splits])))
    low, high = repeated_splits_interval(differences, place.train_images, test_images, confidence)
    value, degrees = float(differences.mean()), len(differences) - 1
    deviation = (high - low) / 2 / float(stdtrit(degrees, (1 + confidence) / 2))
    sure = float(stdtr(degrees, value / deviation)) if deviation else float(value > 0)
    return Lead(first, second, value, low, high, sure, margin)


def _split(parts: list[RunResult]) -> Split:
    """The runs of one point as one: of a budget in seconds there is one for each contestant."""
    correct, seconds, epochs = {}, {}, {}
    for part in parts:
        for name, replicates in _by_contestant(part):
            correct[name] = np.stack([replicate.right() for replicate in replicates])
            seconds[name] = float(np.mean([replicate.train_seconds for replicate in replicates]))
            epochs[name] = replicates[0].epochs
    first = parts[0]
    groups = None if first.groups is None else np.array(first.groups, np.int64)
    return Split(correct, groups, first.train_images, first.test_digest, seconds, epochs)


def _by_contestant(result: RunResult) -> Iterator[tuple[str, list[Replicate]]]:
    for name, replicates in groupby(result.replicates, lambda replicate: replicate.contestant):
        yield name, list(replicates)
