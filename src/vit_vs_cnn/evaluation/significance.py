"""Tests and intervals of two shares of right answers on the same images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri

from vit_vs_cnn.evaluation.clusters import Groups, effective_images, sign_flip_p_values

Count = float | NDArray[np.int64]
Share = float | NDArray[np.float64]


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
    from scipy.stats import binomtest  # half a second

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
    from scipy.stats import binom  # half a second

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
    quantile = float(ndtri((1 + confidence) / 2))
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
    excess = first_only - second_only - images * difference
    variance = images * tango_variance(first_only / images, second_only / images, difference)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(excess == 0, 0.0, excess / np.sqrt(np.maximum(variance, 0.0)))


def tango_variance(first_only: Share, second_only: Share, difference: float) -> Any:
    """The variance of one image's difference, were the true difference this one; shares of images broadcast."""
    linear = -first_only - second_only + (2 - first_only + second_only) * difference
    constant = -second_only * difference * (1 - difference)
    # The most likely share of images that only the second is right on, given `difference`.
    share = (np.sqrt(np.maximum(linear**2 - 8 * constant, 0.0)) - linear) / 4
    return 2 * share + difference * (1 - difference)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values that allow for all tests made together, in the order given (Holm 1979, Scand. J. Statist. 6)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1))
    return [float(p_value) for p_value in np.minimum(adjusted, 1.0)]


def discordant(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int]:
    """How many images only the first got right and how many only the second, from bool (N,) of each."""
    return int((first & ~second).sum()), int((~first & second).sum())


def mean_discordant(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float]:
    """As `discordant`, from bool (S1, N) and (S2, N) of several trainings: the mean over all pairs of them."""
    right, others, pairs = first.sum(axis=0), second.sum(axis=0), len(first) * len(second)
    first_only, second_only = (right * (len(second) - others)).sum(), (others * (len(first) - right)).sum()
    return float(first_only / pairs), float(second_only / pairs)
