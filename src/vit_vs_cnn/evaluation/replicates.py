"""Contestants that were trained several times: which training and which test images are two sources of chance.

`correct` is bool (S, N) throughout: whether each of S trainings, with a seed each, is right on each of N images.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

from vit_vs_cnn.evaluation.clusters import Groups, design_effect, sums_by_group
from vit_vs_cnn.evaluation.metrics import share_interval
from vit_vs_cnn.evaluation.significance import (
    accuracy_difference_interval,
    mcnemar_p_value,
    mean_discordant,
    tango_variance,
)

Correct = NDArray[np.bool_]

# One image more on which two trainings differ, so that few or none of them do not seem to say that there is no chance.
_ONE_IMAGE = 1.0
MOST_SEEDS = 100


@dataclass(frozen=True)
class TrainingChance:
    """How much one training of a contestant differs from another, in variances of its mean over the same images.

    `residual` is the part of `variance` that comes from the images: each training errs on others of the hard ones. Both
    are estimates from `degrees` + 1 seeds; `seeds` are those that a mean is over.
    """

    variance: Any
    residual: Any
    degrees: int
    seeds: int

    @property
    def own(self) -> Any:
        """The variance of accuracy on all images there could be, of a mean over the seeds."""
        return np.maximum(0.0, self.variance - self.residual) / self.seeds

    @property
    def cautious(self) -> Any:
        """As `own`, with less of the residual subtracted the fewer the seeds.

        Both are estimates: floored at 0, their difference is so often too small that an interval by `own` of 2 seeds
        holds the truth too seldom where all variance by images is residual.
        """
        return np.maximum(0.0, self.variance - self.residual * self.degrees / (self.degrees + 1)) / self.seeds


@dataclass(frozen=True)
class ChanceModel:
    """A mean difference of accuracy, first minus second, and what it varies by; its numbers may be arrays of one shape.

    `first_only` and `second_only` are the mean shares of images that only one of two trainings is right on, `images`
    how many independent images their score may count, `degrees` the groups less one, infinite without groups.
    """

    difference: Any
    first_only: Any
    second_only: Any
    images: Any
    degrees: float
    trainings: tuple[TrainingChance, ...]

    def image_variance(self, difference: float) -> Any:
        """The variance by the choice of test images, were the true difference this one (Tango 1998)."""
        return tango_variance(self.first_only, self.second_only, difference) / self.images

    def squared_reach(self, difference: float, tail: float) -> Any:
        """The square of how far from a true `difference` the mean difference lies with probability `tail` on each side.

        A sum of variances, each times its own squared quantile, reaches at least that far for any sizes of the
        variances (Banerjee 1960, Sankhyā 22:357-358). With one training each it is Tango's score interval.
        """
        of_images = stdtrit(self.degrees, tail) ** 2 * self.image_variance(difference)
        return sum((stdtrit(part.degrees, tail) ** 2 * part.cautious for part in self.trainings), start=of_images)

    def interval(self, confidence: float) -> tuple[float, float]:
        """The differences that the mean difference is no further from than chance takes it."""
        tail = (1 - confidence) / 2

        def excess(difference: float) -> float:
            if difference == self.difference:
                return -1.0  # also where nothing seems to vary at this very difference
            return float((self.difference - difference) ** 2 - self.squared_reach(difference, tail))

        def end(limit: float) -> float:
            if excess(limit) <= 0:
                return limit
            return float(brentq(excess, *sorted((self.difference, limit))))

        return end(-1.0), end(1.0)

    def tail(self, difference: float) -> float:
        """The probability that chance takes the mean difference as far from a true `difference` on that side."""
        squared = (self.difference - difference) ** 2
        if squared == 0:
            return 0.5

        def excess(logarithm: float) -> float:
            return float(self.squared_reach(difference, math.exp(logarithm)) - squared)

        least, most = math.log(1e-100), math.log(0.5)
        return math.exp(brentq(excess, least, most)) if excess(least) > 0 else 0.0

    def confidence_below(self, difference: float) -> float:
        """The confidence that the true difference is below this one: that of the one-sided interval that ends there."""
        tail = self.tail(difference)
        return tail if difference < self.difference else 1 - tail

    def is_settled(self, margin: float, tail: float, test_tail: float | None = None) -> Any:
        """Whether the interval excludes 0, at `test_tail` if given, or lies within `margin` of it."""
        apart = self.difference**2 > self.squared_reach(0.0, tail if test_tail is None else test_tail)
        equal = abs(self.difference) < margin
        for end in (-margin, margin):
            equal = equal & ((self.difference - end) ** 2 > self.squared_reach(end, tail))
        return apart | equal

    def with_seeds(self, seeds: int) -> "ChanceModel":
        """The same chances, of means over so many trainings of each."""
        present = self.image_variance(self.difference)
        lasting = max(0.0, present - sum(training.residual / training.seeds for training in self.trainings))
        expected = lasting + sum(training.residual for training in self.trainings) / seeds
        trainings = tuple(
            replace(training, variance=max(training.variance, training.residual), degrees=seeds - 1, seeds=seeds)
            for training in self.trainings
        )
        return replace(self, images=self.images * (present / expected if expected else 1.0), trainings=trainings)

    def seeds_needed(self, margin: float, tail: float, test_tail: float | None = None) -> int | None:
        """How many trainings of each would settle it, if all chances stay; None of one each, or above MOST_SEEDS."""
        if not self.trainings:
            return None
        present = max(training.seeds for training in self.trainings)
        more = range(present + 1, MOST_SEEDS + 1)
        return next((seeds for seeds in more if self.with_seeds(seeds).is_settled(margin, tail, test_tail)), None)

    def times_images_needed(self, margin: float, tail: float, test_tail: float | None = None) -> float | None:
        """How many times the test images would settle it with these trainings, if difference and chances stay."""

        def times(end: float, tail: float) -> float:
            images = stdtrit(self.degrees, tail) ** 2 * self.image_variance(end)
            room = (self.difference - end) ** 2 - (self.squared_reach(end, tail) - images)
            return float(images / room) if room > 0 else math.inf

        needed = times(0.0, tail if test_tail is None else test_tail)
        if abs(self.difference) < margin:
            needed = min(needed, max(times(-margin, tail), times(margin, tail)))
        return needed if math.isfinite(needed) else None

    def image_reach(self, tail: float) -> float:
        """How far from the true difference the choice of images alone takes the mean difference, on each side."""
        return -float(stdtrit(self.degrees, tail)) * math.sqrt(float(self.image_variance(self.difference)))


@dataclass(frozen=True)
class ReplicateDifference:
    """The mean difference of accuracy of two contestants, first minus second, with its interval and p value.

    `training_share` is the part of its variance that more seeds would make smaller; None where each has one training,
    which says nothing of others.
    """

    value: float
    low: float
    high: float
    p_value: float
    first_only: float
    second_only: float
    training_share: float | None
    chance: ChanceModel


@dataclass(frozen=True)
class MeanAccuracy:
    """The mean accuracy of a contestant's trainings with its interval, and their standard deviation; None of one."""

    value: float
    low: float
    high: float
    deviation: float | None
    seeds: int


def compare_replicates(
    first: Correct, second: Correct, confidence: float, groups: Groups | None = None
) -> ReplicateDifference:
    """Compare the trainings of two contestants, bool (S1, N) and (S2, N), on the same images.

    With one training each the interval is Tango's and the p value McNemar's, or the sign-flip test's by groups.
    """
    chance, (first_only, second_only) = chance_model(first, second, groups), mean_discordant(first, second)
    if len(first) == len(second) == 1:
        low, high = accuracy_difference_interval(first[0], second[0], groups, confidence)
        p_value, training_share = mcnemar_p_value(first[0], second[0], groups), None
    else:
        low, high = chance.interval(confidence)
        p_value = min(1.0, 2 * chance.tail(0.0))
        of_training = sum(training.own for training in chance.trainings)
        total = of_training + chance.image_variance(chance.difference)
        training_share = float(of_training / total) if total > 0 else 0.0
    return ReplicateDifference(
        value=chance.difference,
        low=low,
        high=high,
        p_value=p_value,
        first_only=first_only,
        second_only=second_only,
        training_share=training_share,
        chance=chance,
    )


def chance_model(first: Correct, second: Correct, groups: Groups | None = None) -> ChanceModel:
    """Estimate what the mean difference of two contestants, bool (S1, N) and (S2, N), varies by."""
    first_only, second_only = (count / first.shape[1] for count in mean_discordant(first, second))
    gains, difference = first.mean(axis=0) - second.mean(axis=0), first_only - second_only
    images, degrees = _independent_images(gains, first_only + second_only - difference**2, groups)
    return ChanceModel(difference, first_only, second_only, images, degrees, training_chances(first, second, groups))


def _independent_images(means: NDArray[np.float64], of_one: float, groups: Groups | None) -> tuple[float, float]:
    """How many images a score of one training may count where `means` (N,) are over several, and degrees of freedom.

    Means over trainings vary less from image to image than one training, whose variance there is `of_one`.
    """
    images = len(means)
    smaller = (float(np.square(means - means.mean()).sum()) + _ONE_IMAGE) / (images * of_one + _ONE_IMAGE)
    if groups is None:
        return images / smaller, math.inf
    return images / smaller / design_effect(means, groups), max(1, len(np.unique(groups)) - 1)


def training_chances(first: NDArray[Any], second: NDArray[Any], groups: Groups | None) -> tuple[TrainingChance, ...]:
    """The chance of training of values (S1, N) and (S2, N), none where both have one training.

    A contestant with one training is taken to vary as much as the other.
    """
    several = [values for values in (first, second) if len(values) > 1]
    pairs = [(values, values if len(values) > 1 else several[0]) for values in (first, second) if several]
    return tuple(TrainingChance(*training_variance(one, groups), len(one) - 1, len(values)) for values, one in pairs)


def training_variance(values: NDArray[Any], groups: Groups | None = None) -> tuple[float, float]:
    """The variance of the mean `values` of trainings (S, N), S at least 2, and the part that comes from the images.

    That is the interaction in a two-way analysis of variance, which the variance by images has in it too; in networks
    it can be nearly all (Jordan 2024, "On the variance of neural network training with respect to test sets and
    distributions").
    """
    seeds, images = values.shape
    means = values.mean(axis=1)
    interaction = values - values.mean(axis=0) - (means - means.mean())[:, None]
    if groups is not None:
        interaction = np.array([sums_by_group(row, groups) for row in interaction])
    draws = interaction.shape[1]
    residual = float(np.square(interaction).sum()) / (seeds - 1) / images**2 * draws / max(1, draws - 1)
    return float(means.var(ddof=1)), residual


def mean_accuracy(correct: Correct, confidence: float, groups: Groups | None = None) -> MeanAccuracy:
    """The mean accuracy of trainings (S, N), by chance of training and of images; of one training Wilson's interval."""
    seeds, shares = len(correct), correct.mean(axis=0)
    mean, tail = float(shares.mean()), (1 - confidence) / 2
    if seeds == 1:
        return MeanAccuracy(mean, *share_interval(correct[0], groups, confidence), None, 1)
    images, degrees = _independent_images(shares, mean * (1 - mean), groups)
    of_image = stdtrit(degrees, tail) ** 2 / images
    variance, residual = training_variance(correct, groups)
    of_training = stdtrit(seeds - 1, tail) ** 2 * TrainingChance(variance, residual, seeds - 1, seeds).cautious
    # (mean − p)² = of_image · p(1 − p) + of_training, solved for p.
    middle = (mean + of_image / 2) / (1 + of_image)
    half_width = math.sqrt(max(0.0, middle**2 - (mean**2 - of_training) / (1 + of_image)))
    low, high = max(0.0, min(mean, middle - half_width)), min(1.0, max(mean, middle + half_width))
    return MeanAccuracy(mean, low, high, math.sqrt(variance), seeds)


def repeated_splits_interval(
    differences: NDArray[np.float64], train_images: int, test_images: int, confidence: float
) -> tuple[float, float]:
    """Interval of the mean of `differences` (R,), R at least 2, each of an own random split, training and test.

    The splits share images, so the mean of many varies more than the variance over R says: the corrected resampled t
    interval (Nadeau & Bengio 2003, Machine Learning 52:239-281). Few splits may tie, so they vary by one image more.
    """
    repeats, mean = len(differences), float(np.mean(differences))
    variance = float(np.var(differences, ddof=1)) + (_ONE_IMAGE / test_images) ** 2 / (repeats - 1)
    error = math.sqrt((1 / repeats + test_images / train_images) * variance)
    half_width = -float(stdtrit(repeats - 1, (1 - confidence) / 2)) * error
    return mean - half_width, mean + half_width
