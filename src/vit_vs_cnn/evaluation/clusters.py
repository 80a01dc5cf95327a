"""Statistics of images that come in groups, such as photographs of one person: the groups are the independent draws.

Everywhere `groups` are int64 (N,), a code for each image, or None where each image is a draw of its own.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Groups = NDArray[np.int64]

# Of fewer groups nobody knows how much they differ.
FEWEST_GROUPS = 20


def count_draws(images: int, groups: Groups | None) -> int:
    """How many independent draws so many images are."""
    return images if groups is None else len(np.unique(groups))


def sums_by_group(values: NDArray[Any], groups: Groups) -> NDArray[np.float64]:
    """The sum of `values` (N,) in each of G groups, float64 (G,)."""
    _, group = np.unique(groups, return_inverse=True)
    return np.bincount(group, weights=values).astype(np.float64)


def design_effect(values: NDArray[Any], groups: Groups) -> float:
    """How many times the variance of a mean of `values` (N,) is that of as many independent ones (Kish 1965).

    At least 1. Where the values are all the same, which says nothing of how alike a group is, it is that of groups
    whose images are all alike.
    """
    residuals = values - np.mean(values)
    independent = float(np.square(residuals).sum())
    sizes = sums_by_group(np.ones(len(values)), groups)
    if independent == 0.0 or len(sizes) == 1:
        return float(np.square(sizes).sum() / sizes.sum())
    between = float(np.square(sums_by_group(residuals, groups)).sum()) * len(sizes) / (len(sizes) - 1)
    return max(1.0, between / independent)


def effective_images(values: NDArray[Any], groups: Groups | None, confidence: float) -> float:
    """How many independent images a score interval of the mean of `values` (N,) may count at this confidence.

    The images over their design effect (Rao & Scott 1992, Biometrics 48:577–585), and fewer by as much as Student's t
    quantile with a degree of freedom less than groups exceeds the normal one (Korn & Graubard 1998, Survey Methodology
    24:193–201).
    """
    if groups is None:
        return float(len(values))
    wider = quantile(confidence, groups) / quantile(confidence, None)
    return len(values) / design_effect(values, groups) / wider**2


def quantile(confidence: float, groups: Groups | None) -> float:
    """How many standard errors a two-sided interval reaches: normal, or Student's t by the number of groups."""
    if groups is None:
        return float(ndtri((1 + confidence) / 2))
    return float(stdtrit(max(1, len(np.unique(groups)) - 1), (1 + confidence) / 2))


def mean_interval(values: NDArray[np.float64], groups: Groups | None, confidence: float) -> tuple[float, float]:
    """Student's t interval of the mean of `values` (N,), by images or by groups; without ends of a single one."""
    mean, count = float(values.mean()), count_draws(len(values), groups)
    if count < 2:
        return -math.inf, math.inf
    sums = values - mean if groups is None else sums_by_group(values - mean, groups)
    error = math.sqrt(np.square(sums).sum() * count / (count - 1)) / len(values)
    half_width = float(stdtrit(count - 1, (1 + confidence) / 2)) * error
    return mean - half_width, mean + half_width


def resampled(
    sums: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], float], resamples: int
) -> NDArray[np.float64]:
    """A statistic of the column sums of `sums` (G, C), whose rows, the groups, are drawn with replacement.

    Returns float64 (resamples,). The cluster bootstrap (Field & Welsh 2007, J. R. Statist. Soc. B 69:369–390).
    """
    rng, count = np.random.default_rng(0), len(sums)
    draws = (rng.multinomial(count, np.full(count, 1 / count)) for _ in range(resamples))
    return np.array([statistic(draw @ sums) for draw in draws])


def sign_flip_p_values(differences: NDArray[np.int64], groups: Groups | None) -> tuple[float, float]:
    """P values, two-sided and one-sided mid-p of a loss, that two models differ only by chance in `differences` (N,).

    An image has 1 where only the first is right, −1 where only the second is. Were the models alike, the two could be
    exchanged in each group: all signs of the groups' sums are equally likely (Winkler et al. 2014, NeuroImage
    92:381–397). The distribution is exact; where each image is a group the test is McNemar's.
    """
    from scipy.signal import fftconvolve
    from scipy.stats import binom  # half a second

    sums = differences if groups is None else sums_by_group(differences, groups).round().astype(np.int64)
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    chances = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        of_size = np.zeros(2 * size * count + 1)
        of_size[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.maximum(fftconvolve(chances, of_size), 0.0)
    total, largest = int(sums.sum()), len(chances) // 2
    as_far = np.abs(np.arange(-largest, largest + 1)) >= abs(total)
    below = float(chances[: total + largest].sum() + chances[total + largest] / 2)
    return min(1.0, float(chances[as_far].sum())), min(1.0, below)
