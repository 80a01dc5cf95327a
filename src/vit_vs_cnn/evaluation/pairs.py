"""Pairs of contestants: whether one is better or both are practically equal, and the sentence that says it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil
from typing import Literal

import numpy as np
from scipy.special import ndtri

from vit_vs_cnn.core.console import points, two_digits
from vit_vs_cnn.evaluation.clusters import Groups
from vit_vs_cnn.evaluation.replicates import MOST_SEEDS, ChanceModel, Correct, compare_replicates
from vit_vs_cnn.evaluation.significance import holm

# Where neither more seeds nor more images alone settle it: seeds that a person may train, and images for these.
_SEEDS_BESIDE_IMAGES = 10


@dataclass(frozen=True)
class Probabilities:
    """The confidence in each answer about the true difference, 1 in sum.

    They invert one-sided intervals at plus and minus the margin, the region of practical equivalence of Benavoli et
    al. (2017, JMLR 18:77).
    """

    first_better: float
    equal: float
    second_better: float


@dataclass(frozen=True)
class PairedComparison:
    """Two contestants on the same images; `difference` and its interval are of mean accuracy, first minus second.

    `first_only` and `second_only` count the images that only one of them got right, in the mean over their trainings,
    `first_seeds` and `second_seeds` of them. `adjusted_p_value` allows for the number of pairs that were compared.
    `training_share` is the part of the variance by training, the rest is by images, which alone reach `image_reach` to
    each side; the share and `seeds_needed` are None where each was trained once. What is undecided would be settled,
    if all stays, by `seeds_needed` trainings on these images, or by `images_needed` with these trainings; where
    `needs_both`, neither alone would. With `groups`, the number of groups that the images are of, all is by groups.
    """

    first: str
    second: str
    images: int
    first_only: float
    second_only: float
    difference: float
    low: float
    high: float
    confidence: float
    p_value: float
    adjusted_p_value: float
    margin: float
    probabilities: Probabilities
    image_reach: float
    first_seeds: int = 1
    second_seeds: int = 1
    groups: int | None = None
    training_share: float | None = None
    seeds_needed: int | None = None
    images_needed: int | None = None
    needs_both: bool = False

    @property
    def is_significant(self) -> bool:
        """Whether both the test and the interval say that the difference is more than chance."""
        return self.adjusted_p_value < 1 - self.confidence and not self.low <= 0.0 <= self.high

    @property
    def better(self) -> str | None:
        """The contestant that is better by more than chance, if either is."""
        if not self.is_significant:
            return None
        return self.first if self.difference > 0 else self.second

    @property
    def verdict(self) -> Literal["better", "equal", "undecided"]:
        """Whether one is better, or both are practically equal: the interval is within the margin."""
        if self.is_significant:
            return "better"
        return "equal" if -self.margin < self.low and self.high < self.margin else "undecided"


def compare_all_pairs(
    correct: Mapping[str, Correct], confidence: float, margin: float, groups: Groups | None = None
) -> list[PairedComparison]:
    """Compare each pair of contestants once, in order, from whether each of their trainings was right, bool (S, N)."""
    pairs = list(combinations(correct, 2))
    found = [compare_replicates(correct[first], correct[second], confidence, groups) for first, second in pairs]
    adjusted = holm([difference.p_value for difference in found])
    tail, test_tail = (1 - confidence) / 2, (1 - confidence) / 2 / max(1, len(pairs))
    comparisons = []
    for (first, second), difference, adjusted_p_value in zip(pairs, found, adjusted, strict=True):
        below, above = difference.chance.confidence_below(-margin), difference.chance.confidence_below(margin)
        pair = PairedComparison(
            first=first,
            second=second,
            images=correct[first].shape[1],
            first_only=difference.first_only,
            second_only=difference.second_only,
            difference=difference.value,
            low=difference.low,
            high=difference.high,
            confidence=confidence,
            p_value=difference.p_value,
            adjusted_p_value=adjusted_p_value,
            margin=margin,
            probabilities=Probabilities(1 - above, above - below, below),
            image_reach=difference.chance.image_reach(tail),
            first_seeds=len(correct[first]),
            second_seeds=len(correct[second]),
            groups=None if groups is None else len(np.unique(groups)),
            training_share=difference.training_share,
        )
        if pair.verdict == "undecided":
            pair = _with_needs(pair, difference.chance, tail, test_tail)
        comparisons.append(pair)
    return comparisons


def _with_needs(pair: PairedComparison, chance: ChanceModel, tail: float, test_tail: float) -> PairedComparison:
    """The pair with what would settle it: more seeds or more images or, where neither alone would, some of both."""
    seeds = chance.seeds_needed(pair.margin, tail, test_tail)
    times = chance.times_images_needed(pair.margin, tail, test_tail)
    if times is not None and times <= 1:
        # The exact test of one training each asks for more than the score that `times` is by; z grows as √images.
        times = float((ndtri(test_tail) / ndtri(pair.p_value / 2)) ** 2)
    needs_both = seeds is None and times is None and len(chance.trainings) > 0
    if needs_both:
        seeds = max(_SEEDS_BESIDE_IMAGES, pair.first_seeds, pair.second_seeds)
        times = chance.with_seeds(seeds).times_images_needed(pair.margin, tail, test_tail)
    if times is None:
        return replace(pair, seeds_needed=None if needs_both else seeds)
    return replace(pair, seeds_needed=seeds, images_needed=ceil(times * pair.images), needs_both=needs_both)


def verdict(pair: PairedComparison, pairs: int = 1) -> str:
    """One plain sentence: what test and interval say of this pair, one of `pairs` tested, and what would settle it."""
    leader, other, low, high = pair.first, pair.second, pair.low, pair.high
    if pair.difference < 0:
        leader, other, low, high = other, leader, -high, -low
    scope = f"On these {pair.images:,} test images, {_trainings(pair)},"
    if pair.first_only + pair.second_only == 0:
        compared = f"{leader} and {other} are right on exactly the same ones"
    elif pair.difference == 0:
        compared = f"{leader} and {other} are right equally often"
    else:
        lead = points(abs(pair.difference)) if abs(pair.difference) >= 0.0005 else "less than 0.1"
        compared = f"{leader} is right on {lead} points more than {other}"
    evidence = f"({100 * pair.confidence:g} % interval {points(low)} to {points(high)}; {_test(pair, pairs)})"
    return f"{scope} {compared} {evidence}: {_conclusion(pair, high)}."


def _trainings(pair: PairedComparison) -> str:
    if pair.first_seeds == pair.second_seeds == 1:
        return "in this one training of each"
    if pair.first_seeds == pair.second_seeds:
        return f"in the mean of {pair.first_seeds} trainings of each"
    return f"in the mean of {pair.first_seeds} trainings of {pair.first} and {pair.second_seeds} of {pair.second}"


def _test(pair: PairedComparison, pairs: int) -> str:
    one_each = pair.first_seeds == pair.second_seeds == 1
    by_groups = "" if pair.groups is None else f"both by the {pair.groups:,} groups of these images; "
    name = ("McNemar p" if pair.groups is None else "sign-flip p") if one_each else "p"
    p_value = pair.adjusted_p_value
    value = f"= {p_value:.{3 if p_value < 0.1 else 2}f}" if p_value >= 0.001 else "< 0.001"
    return f"{by_groups}{name} {value}" + (f", adjusted for {pairs} pairs" if pairs > 1 else "")


def _conclusion(pair: PairedComparison, high: float) -> str:
    margin = f"{100 * pair.margin:g} point{'' if pair.margin == 0.01 else 's'}"
    if pair.verdict == "better":
        beyond = "" if high >= pair.margin else f", though it is less than {margin}"
        return f"the difference is unlikely to be chance{beyond}"
    if pair.verdict == "equal":
        return f"the two are practically equal, within {margin}"
    if pair.adjusted_p_value < 1 - pair.confidence:
        answer = "the interval reaches zero though the test does not, too little to decide between the two"
    else:
        answer = "the difference may be chance, which of the two is better cannot be told from this"
    return answer + _needed(pair)


def _needed(pair: PairedComparison) -> str:
    """What would settle an undecided pair: seeds if there were several, else images, or some of both."""
    seeds, images = pair.seeds_needed, None
    if pair.images_needed is not None:
        images = f"about {two_digits(pair.images_needed)} such test images"
    if pair.needs_both:
        return f"; about {seeds} trainings of each on {images} would settle it, if all else stays"
    if seeds is not None:
        return f"; about {seeds} trainings of each would settle it, if all else stays"
    if images is None:
        return "; more trainings of each and more test images are needed"
    if pair.training_share is None:
        return (
            f"; {images} would settle it for these two trainings, and more trainings of each say whether others agree"
        )
    return f"; not even {MOST_SEEDS} trainings of each would settle it on these images, {images} would"
