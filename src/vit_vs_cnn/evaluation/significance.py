"""Whether two contestants differ by more than chance, from the same test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from vit_vs_cnn.core.console import points


@dataclass(frozen=True)
class PairedComparison:
    """Two contestants on the same images; `difference` and its interval are accuracy of first minus second.

    `first_only` and `second_only` count the images that only one of them got right. `p_value` is McNemar's;
    `adjusted_p_value` allows for the number of pairs that were compared.
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
    correct: Mapping[str, NDArray[np.bool_]], confidence: float, resamples: int, seed: int
) -> list[PairedComparison]:
    """Compare each pair of contestants once, in order, from whether each was right on each image, bool (N,)."""
    pairs = list(combinations(correct, 2))
    p_values = [mcnemar_p_value(correct[first], correct[second]) for first, second in pairs]
    comparisons = []
    for (first, second), p_value, adjusted_p_value in zip(pairs, p_values, holm(p_values), strict=True):
        images = len(correct[first])
        first_only, second_only = _discordant(correct[first], correct[second])
        low, high = bootstrap_interval(correct[first], correct[second], confidence, resamples, seed)
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
            )
        )
    return comparisons


def mcnemar_p_value(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Two-sided p value of McNemar's test (1947) that both are right equally often; 1 where no image divides them.

    The exact binomial form at every size: it costs a millisecond for a million images, so the chi-square
    approximation has no use.
    """
    first_only, second_only = _discordant(first, second)
    if first_only + second_only == 0:
        return 1.0
    return float(binomtest(first_only, first_only + second_only).pvalue)


def bootstrap_interval(
    first: NDArray[np.bool_], second: NDArray[np.bool_], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Percentile interval of accuracy(first) − accuracy(second) over `resamples` draws of the images.

    Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    images = len(first)
    first_only, second_only = _discordant(first, second)
    # A resample of N images enters the difference only through how many of them one contestant alone got right.
    # Those counts are multinomial, so drawing them is drawing the images, without touching N images each time.
    shares = [first_only / images, second_only / images, 1 - (first_only + second_only) / images]
    counts = np.random.default_rng(seed).multinomial(images, shares, size=resamples)
    differences = (counts[:, 0] - counts[:, 1]) / images
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


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
        f"({100 * pair.confidence:g} % interval {points(low)} to {points(high)}; McNemar p "
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


def _discordant(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int]:
    return int((first & ~second).sum()), int((~first & second).sum())
