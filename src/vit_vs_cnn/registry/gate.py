"""The gate before `champion`: rules over what was measured of a challenger, and of the champion on the same images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.config.schema import EvaluateSettings, GateSettings
from vit_vs_cnn.core.console import points
from vit_vs_cnn.evaluation.significance import bootstrap_interval
from vit_vs_cnn.registry.audit import RuleOutcome


@dataclass(frozen=True)
class Evidence:
    """What was measured of one version on N test images: labels and predicted int64 (N,), and its cost."""

    classes: Sequence[str]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    calibration_error: float
    latency_p95_ms: float
    size_mb: float

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image got its own class, bool (N,)."""
        return np.equal(self.labels, self.predicted)


def judge(
    challenger: Evidence, champion: Evidence | None, gate: GateSettings, statistics: EvaluateSettings, seed: int
) -> tuple[RuleOutcome, ...]:
    """The outcome of every rule that `gate` has; those of comparison only where there is a champion.

    Both were measured on the same images in the same order.
    """
    outcomes = list(_absolute_rules(challenger, gate))
    if champion is not None:
        outcomes += [
            _not_worse(challenger, champion, gate.margin, statistics, seed),
            _no_class_worse(challenger, champion, gate.class_margin),
        ]
    return tuple(outcomes)


def _absolute_rules(challenger: Evidence, gate: GateSettings) -> Iterator[RuleOutcome]:
    accuracy = float(challenger.correct.mean())
    yield RuleOutcome(
        rule="accuracy",
        measured=f"{accuracy:.2%} of {len(challenger.labels):,} images",
        required=f"at least {gate.min_accuracy:.2%}",
        passed=accuracy >= gate.min_accuracy,
        value=accuracy,
    )
    for rule, value, limit, unit in (
        ("calibration error", challenger.calibration_error, gate.max_calibration_error, ""),
        ("latency p95", challenger.latency_p95_ms, gate.max_latency_p95_ms, " ms"),
        ("size", challenger.size_mb, gate.max_size_mb, " MB"),
    ):
        if limit is not None:
            yield RuleOutcome(
                rule=rule,
                measured=f"{value:.3g}{unit}",
                required=f"at most {limit:g}{unit}",
                passed=value <= limit,
                value=value,
            )


def _not_worse(
    challenger: Evidence, champion: Evidence, margin: float, statistics: EvaluateSettings, seed: int
) -> RuleOutcome:
    """Non-inferiority: the paired interval of the difference lies above −margin."""
    own, others = challenger.correct, champion.correct
    low, high = bootstrap_interval(own, others, statistics.confidence, statistics.bootstrap, seed)
    difference = float(own.mean() - others.mean())
    interval = f"{100 * statistics.confidence:g} % interval {_points(low)} to {_points(high)}"
    return RuleOutcome(
        rule="accuracy beside the champion",
        measured=f"{_points(difference)} points ({interval})",
        required=f"interval not below {_points(-margin)}",
        passed=low >= -margin,
        value=difference,
    )


def _no_class_worse(challenger: Evidence, champion: Evidence, margin: float) -> RuleOutcome:
    changes = {
        name: float(challenger.correct[of_class].mean() - champion.correct[of_class].mean())
        for index, name in enumerate(challenger.classes)
        if (of_class := champion.labels == index).any()
    }
    worst = min(changes, key=lambda name: changes[name])
    return RuleOutcome(
        rule="every class beside the champion",
        measured=f"{_points(changes[worst])} points for {worst!r}, the least",
        required=f"no class below {_points(-margin)}",
        # A small tolerance: 0.95 - 1.0 is not exactly -0.05.
        passed=changes[worst] >= -margin - 1e-9,
        value=changes[worst],
    )


def _points(fraction: float) -> str:
    return points(fraction, 2, sign=True)
