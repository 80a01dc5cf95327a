"""The gate on made predictions where the right answer is known, and its error rates by simulation."""

import dataclasses
from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import CLASSES, IMAGES, evaluation
from vit_vs_cnn.config.schema import EvaluateSettings, GateSettings
from vit_vs_cnn.registry.gate import Evidence, judge

GATE = GateSettings(min_accuracy=0.8, max_calibration_error=0.15, max_latency_p95_ms=10.0, max_size_mb=1.0)
STATISTICS = EvaluateSettings(bootstrap=2000)


def evidence(wrong: Collection[int], **changes: float) -> Evidence:
    made_up = evaluation(wrong)
    predictions = made_up.predictions
    known = Evidence(CLASSES, predictions.labels, predictions.predicted, 0.02, 2.0, 0.5)
    return dataclasses.replace(known, **changes)


def failed(challenger: Evidence, champion: Evidence | None, gate: GateSettings = GATE) -> set[str]:
    outcomes = judge(challenger, champion, gate, STATISTICS, seed=0)
    return {outcome.rule for outcome in outcomes if not outcome.passed}


def test_the_first_champion_meets_the_absolute_rules_only() -> None:
    outcomes = judge(evidence(range(60)), None, GATE, STATISTICS, seed=0)
    assert [outcome.rule for outcome in outcomes] == ["accuracy", "calibration error", "latency p95", "size"]
    assert all(outcome.passed for outcome in outcomes)


def test_a_better_one_passes() -> None:
    assert failed(evidence(range(30)), evidence(range(60))) == set()


def test_an_equal_one_passes() -> None:
    assert failed(evidence(range(60)), evidence(range(60))) == set()


def test_a_worse_one_fails_the_paired_interval() -> None:
    # Of every class the same number: only the accuracy as a whole tells them apart.
    assert failed(evidence(range(60)), evidence(range(36))) == {"accuracy beside the champion"}


def test_one_that_lost_a_single_class_fails_that_rule_though_it_is_better_in_all() -> None:
    champion, owls = evidence(range(60)), range(2, IMAGES, 3)
    lost = evidence(list(owls)[:34])  # the champion is wrong on 20 owls
    assert lost.correct.mean() > champion.correct.mean()
    outcomes = judge(lost, champion, GATE, STATISTICS, seed=0)
    assert [outcome.rule for outcome in outcomes if not outcome.passed] == ["every class beside the champion"]
    assert outcomes[-1].measured == "−7.00 points for 'NA', the least"


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("latency p95", {"latency_p95_ms": 10.1}),
        ("size", {"size_mb": 1.1}),
        ("calibration error", {"calibration_error": 0.2}),
        ("latency p95", {"latency_p95_ms": float("nan")}),
    ],
)
def test_too_slow_too_large_or_badly_calibrated_fails_that_rule(rule: str, changes: dict[str, float]) -> None:
    assert failed(evidence(range(30), **changes), evidence(range(60))) == {rule}


def test_below_the_least_accuracy_not_even_the_first_becomes_champion() -> None:
    assert failed(evidence(range(0, IMAGES, 3)), None) == {"accuracy"}


def test_a_limit_of_none_is_no_rule() -> None:
    gate = GateSettings(max_calibration_error=None)
    assert [outcome.rule for outcome in judge(evidence([]), None, gate, STATISTICS, seed=0)] == ["accuracy"]


@given(wrong=st.sets(st.integers(0, IMAGES - 1), max_size=200), fixed=st.integers(0, 50))
def test_getting_more_images_right_never_fails_a_rule_that_passed(wrong: set[int], fixed: int) -> None:
    champion = evidence(range(60))
    better = sorted(wrong)[fixed:]
    assert failed(evidence(better), champion) <= failed(evidence(sorted(wrong)), champion)


def test_error_rates_by_simulation_at_95_percent() -> None:
    """At the margin 2.5 % are let through, of those as good as the champion nearly all."""
    rng = np.random.default_rng(0)
    images, margin, rounds, labels = 4000, 0.02, 1000, np.zeros(4000, np.int64)
    gate, statistics = GateSettings(margin=margin, class_margin=1.0), EvaluateSettings(bootstrap=500)

    def share_let_through(lost: float) -> float:
        passed = 0
        for _ in range(rounds):
            draw = rng.random(images)
            # The champion alone is right on 5 % of the images, the challenger alone on 5 % less what it lost.
            champion, challenger = draw > 0.05, (draw <= 0.05 - lost) | (draw > 0.10)
            (rule,) = (
                outcome
                for outcome in judge(
                    Evidence(["only"], labels, (~challenger).astype(np.int64), 0.0, 0.0, 0.0),
                    Evidence(["only"], labels, (~champion).astype(np.int64), 0.0, 0.0, 0.0),
                    gate,
                    statistics,
                    seed=int(rng.integers(2**31)),
                )
                if outcome.rule == "accuracy beside the champion"
            )
            passed += rule.passed
        return passed / rounds

    assert 0.010 <= share_let_through(lost=margin) <= 0.040
    assert share_let_through(lost=0.0) > 0.95
    assert share_let_through(lost=0.035) < 0.005
