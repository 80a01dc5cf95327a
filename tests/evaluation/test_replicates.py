"""Statistics of replicates: beside those of one training, and their coverage by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import t

from vit_vs_cnn.evaluation.metrics import share_interval
from vit_vs_cnn.evaluation.replicates import compare_replicates, mean_accuracy, repeated_splits_interval
from vit_vs_cnn.evaluation.significance import accuracy_difference_interval, mcnemar_p_value

Correct = NDArray[np.bool_]


def random_trainings(seed: int, seeds: int, images: int, accuracy: float = 0.9) -> Correct:
    """Trainings that are right on the easy images, and now and then on the hard ones."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 1, images)
    threshold = np.quantile(ease, 1 - accuracy)
    return ease + rng.normal(0, 0.4, (seeds, images)) + rng.normal(0, 0.05, (seeds, 1)) > threshold


@given(st.integers(0, 10_000), st.integers(1, 300), st.booleans())
def test_with_one_training_each_it_is_tangos_interval_and_mcnemars_test(seed: int, images: int, grouped: bool) -> None:
    first, second = random_trainings(seed, 1, images), random_trainings(seed + 1, 1, images, 0.8)
    groups = np.arange(images) // 3 if grouped else None
    found = compare_replicates(first, second, 0.95, groups)
    assert (found.low, found.high) == accuracy_difference_interval(first[0], second[0], groups, 0.95)
    assert found.p_value == mcnemar_p_value(first[0], second[0], groups)
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert found.training_share is None
    # The confidence distribution inverts the same interval.
    if found.low > -1:
        assert found.confidence_below(found.low) == pytest.approx(0.025, rel=1e-3)


@given(st.integers(0, 10_000), st.tuples(st.integers(2, 5), st.integers(1, 5)), st.booleans())
def test_interval_p_value_and_confidence_agree_and_mirror(seed: int, seeds: tuple[int, int], grouped: bool) -> None:
    first, second = random_trainings(seed, seeds[0], 150), random_trainings(seed + 1, seeds[1], 150, 0.8)
    groups = np.arange(150) // 3 if grouped else None
    found, mirrored = compare_replicates(first, second, 0.95, groups), compare_replicates(second, first, 0.95, groups)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
    assert found.low <= found.value <= found.high
    assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)
    assert found.p_value == pytest.approx(mirrored.p_value, rel=1e-6)
    for end, confidence in ((found.low, 0.025), (found.high, 0.975)):
        if abs(end) < 1:
            assert found.confidence_below(end) == pytest.approx(confidence, rel=1e-4)
    ends = [found.confidence_below(difference) for difference in np.linspace(-0.99, 0.99, 21)]
    assert ends == sorted(ends)


def test_one_training_gives_wilsons_interval_of_the_accuracy() -> None:
    correct = random_trainings(0, 1, 400)
    found = mean_accuracy(correct, 0.95)
    assert (found.low, found.high) == share_interval(correct[0], None, 0.95)
    assert (found.value, found.deviation, found.seeds) == (correct.mean(), None, 1)


def test_the_corrected_interval_of_repeated_splits() -> None:
    differences = np.array([0.02, 0.05, -0.01, 0.03])
    error = np.sqrt((1 / 4 + 30 / 120) * differences.var(ddof=1))
    half_width = t.ppf(0.95, 3) * error
    assert repeated_splits_interval(differences, 120, 30, 0.90) == pytest.approx(
        (differences.mean() - half_width, differences.mean() + half_width)
    )
