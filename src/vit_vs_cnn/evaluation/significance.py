"""Whether two contestants differ by more than chance, from the same test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest


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
    right: dict[str, NDArray[np.bool_]], confidence: float, resamples: int, seed: int
) -> list[PairedComparison]:
    """Each pair of contestants once, in order, from whether each got each image right, bool (N,)."""
    names = list(right)
    pairs = [(first, second) for i, first in enumerate(names) for second in names[i + 1 :]]
    p_values = [mcnemar_p_value(right[first], right[second]) for first, second in pairs]
    comparisons = []
    for (first, second), p_value, adjusted in zip(pairs, p_values, holm(p_values), strict=True):
        a, b = right[first], right[second]
        low, high = bootstrap_interval(a, b, confidence, resamples, seed)
        first_only, second_only = _discordant(a, b)
        comparisons.append(
            PairedComparison(
                first=first,
                second=second,
                images=len(a),
                first_only=first_only,
                second_only=second_only,
                difference=(first_only - second_only) / len(a),
                low=low,
                high=high,
                confidence=confidence,
                p_value=p_value,
                adjusted_p_value=adjusted,
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
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def verdict(pair: PairedComparison, pairs: int = 1) -> str:
    """One plain sentence that says what the test and the interval say of this pair, one of `pairs` tested."""
    on = f"On these {pair.images:,} test images"
    if pair.first_only + pair.second_only == 0:
        return f"{on} {pair.first} and {pair.second} are right on exactly the same ones: they cannot be told apart."
    first_leads = pair.first_only >= pair.second_only
    leader, other = (pair.first, pair.second) if first_leads else (pair.second, pair.first)
    low, high = (pair.low, pair.high) if first_leads else (-pair.high, -pair.low)
    adjusted = f", adjusted for {pairs} pairs" if pairs > 1 else ""
    evidence = (
        f"({100 * pair.confidence:g} % interval {_points(low)} to {_points(high)}; "
        f"McNemar p {_p(pair.adjusted_p_value)}{adjusted})"
    )
    if pair.first_only == pair.second_only:
        return f"{on} {leader} and {other} are right equally often {evidence}: they cannot be told apart."
    gap = abs(pair.difference)
    points = _points(gap) if gap >= 0.0005 else "less than 0.1"
    lead = f"{on} {leader} is right on {points} points more than {other} {evidence}"
    if pair.is_significant:
        return f"{lead}: the difference is unlikely to be chance."
    if pair.adjusted_p_value >= 1 - pair.confidence:
        return f"{lead}: the difference may be chance, the two cannot be told apart."
    return f"{lead}: the interval reaches zero though the test does not, too little to tell the two apart."


def _discordant(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int]:
    return int((first & ~second).sum()), int((~first & second).sum())


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}" if value < 0.1 else f"= {value:.2f}"


def _points(fraction: float) -> str:
    return f"{100 * fraction:.1f}".replace("-0.0", "0.0").replace("-", "−")
