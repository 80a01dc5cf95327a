"""Whether two contestants differ by more than chance, from the same test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, norm

from vit_vs_cnn.core.console import points
from vit_vs_cnn.evaluation.clusters import Groups, effective_images, sign_flip_p_values

Count = float | NDArray[np.int64]


@dataclass(frozen=True)
class PairedComparison:
    """Two contestants on the same images; `difference` and its interval, Tango's, are of accuracy, first minus second.

    `first_only` and `second_only` count the images that only one of them got right. `p_value` is McNemar's;
    `adjusted_p_value` allows for the number of pairs that were compared. With `groups`, the number of groups that the
    images are of, the interval counts effective images and the test exchanges the two in whole groups.
    """

    first: str
    second: str
    images: int
    first_only: int
    second_only: int
    difference: float
    low: float
    high: float
    confidence: float
    p_value: float
    adjusted_p_value: float
    groups: int | None = None

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


def compare_all_pairs(
    correct: Mapping[str, NDArray[np.bool_]], confidence: float, groups: Groups | None = None
) -> list[PairedComparison]:
    """Compare each pair of contestants once, in order, from whether each was right on each image, bool (N,)."""
    pairs = list(combinations(correct, 2))
    p_values = [mcnemar_p_value(correct[first], correct[second], groups) for first, second in pairs]
    comparisons = []
    for (first, second), p_value, adjusted_p_value in zip(pairs, p_values, holm(p_values), strict=True):
        images = len(correct[first])
        first_only, second_only = discordant(correct[first], correct[second])
        low, high = accuracy_difference_interval(correct[first], correct[second], groups, confidence)
        comparisons.append(
            PairedComparison(
                first=first,
                second=second,
                images=images,
                first_only=first_only,
                second_only=second_only,
                difference=(first_only - second_only) / images,
                low=low,
                high=high,
                confidence=confidence,
                p_value=p_value,
                adjusted_p_value=adjusted_p_value,
                groups=None if groups is None else len(np.unique(groups)),
            )
        )
    return comparisons


def accuracy_difference_interval(
    first: NDArray[np.bool_], second: NDArray[np.bool_], groups: Groups | None, confidence: float
) -> tuple[float, float]:
    """Tango's interval of accuracy(first) − accuracy(second); by groups, of the effective number of images."""
    first_only, second_only = discordant(first, second)
    images = effective_images(first.astype(np.int64) - second, groups, confidence)
    scale = images / len(first)
    return tango_interval(scale * first_only, scale * second_only, images, confidence)


def mcnemar_p_value(first: NDArray[np.bool_], second: NDArray[np.bool_], groups: Groups | None = None) -> float:
    """Two-sided p value of McNemar's test (1947) that both are right equally often; 1 where no image divides them.

    The exact binomial form at every size: it costs a millisecond for a million images, so the chi-square
    approximation has no use. With `groups` the two are exchanged in whole groups.
    """
    if groups is not None:
        return sign_flip_p_values(first.astype(np.int64) - second, groups)[0]
    first_only, second_only = discordant(first, second)
    if first_only + second_only == 0:
        return 1.0
    return float(binomtest(first_only, first_only + second_only).pvalue)


def mid_p_value(first_only: Count, second_only: Count) -> Any:
    """One-sided mid-p value of McNemar's test that the first is right less often than the second; counts broadcast.

    The exact test counts the observed table in full and stays far below its level where few images divide the two; the
    mid-p test counts half of it (Fagerland, Lydersen & Laake 2013, BMC Med. Res. Methodol. 13:91).
    """
    discordant = first_only + second_only
    return binom.cdf(first_only, discordant, 0.5) - 0.5 * binom.pmf(first_only, discordant, 0.5)


def class_losses(
    first_only: NDArray[np.int64], second_only: NDArray[np.int64], images: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much less often the first is right on the images of each class, and the p value that this is chance.

    From counts (K,) of K classes that have images. The one-sided mid-p values allow for all K tests (Holm).
    """
    losses = (second_only - first_only) / images
    return losses, np.array(holm(mid_p_value(first_only, second_only)))


def tango_interval(first_only: float, second_only: float, images: float, confidence: float) -> tuple[float, float]:
    """Score interval of accuracy(first) − accuracy(second) on the same images (Tango 1998, Stat. Med. 17:891–908).

    It keeps its level where one of the two alone is right on few images or none: there a bootstrap of the images, or a
    normal approximation at the observed counts, has too short an interval.
    """
    quantile = float(norm.ppf((1 + confidence) / 2))
    difference = (first_only - second_only) / images

    def end(limit: float, score: float) -> float:
        # The score is 0 at the observed difference and infinite at ±1.
        if difference == limit:
            return limit
        bracket = sorted((difference, limit * (1 - 1e-12)))
        return float(brentq(lambda delta: tango_score(first_only, second_only, images, delta) - score, *bracket))

    return end(-1.0, quantile), end(1.0, -quantile)


def tango_score(first_only: Count, second_only: Count, images: Count, difference: float) -> Any:
    """Tango's statistic z of the hypothesis that accuracy(first) − accuracy(second) is `difference`; counts broadcast.

    It falls as `difference` grows: the interval are the differences at which it is within the normal quantiles.
    """
    quadratic = 2 * images
    linear = -first_only - second_only + (2 * images - first_only + second_only) * difference
    constant = -second_only * difference * (1 - difference)
    # The most likely share of images that only the second is right on, given `difference`.
    share = (np.sqrt(np.maximum(linear**2 - 4 * quadratic * constant, 0.0)) - linear) / (2 * quadratic)
    variance = images * (2 * share + difference * (1 - difference))
    excess = first_only - second_only - images * difference
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(excess == 0, 0.0, excess / np.sqrt(np.maximum(variance, 0.0)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values that allow for all tests made together, in the order given (Holm 1979, Scand. J. Statist. 6)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1))
    return [float(p_value) for p_value in np.minimum(adjusted, 1.0)]


def verdict(pair: PairedComparison, pairs: int = 1) -> str:
    """One plain sentence that says what the test and the interval say of this pair, one of `pairs` tested."""
    images = f"On these {pair.images:,} test images"
    if pair.first_only + pair.second_only == 0:
        return f"{images} {pair.first} and {pair.second} are right on exactly the same ones: they cannot be told apart."
    leader, other, low, high = pair.first, pair.second, pair.low, pair.high
    if pair.difference < 0:
        leader, other, low, high = other, leader, -high, -low
    p_value = pair.adjusted_p_value
    digits = 3 if p_value < 0.1 else 2
    evidence = (
        f"({100 * pair.confidence:g} % interval {points(low)} to {points(high)}; "
        + ("McNemar p " if pair.groups is None else f"both by the {pair.groups:,} groups of these images; sign-flip p ")
        + (f"= {p_value:.{digits}f}" if p_value >= 0.001 else "< 0.001")
        + (f", adjusted for {pairs} pairs)" if pairs > 1 else ")")
    )
    if pair.difference == 0:
        return f"{images} {leader} and {other} are right equally often {evidence}: they cannot be told apart."
    lead = points(abs(pair.difference)) if abs(pair.difference) >= 0.0005 else "less than 0.1"
    if pair.is_significant:
        conclusion = "the difference is unlikely to be chance"
    elif p_value >= 1 - pair.confidence:
        conclusion = "the difference may be chance, the two cannot be told apart"
    else:
        conclusion = "the interval reaches zero though the test does not, too little to tell the two apart"
    return f"{images} {leader} is right on {lead} points more than {other} {evidence}: {conclusion}."


def discordant(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int]:
    """How many images only the first got right and how many only the second, from bool (N,) of each."""
    return int((first & ~second).sum()), int((~first & second).sum())
