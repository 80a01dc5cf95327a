"""Statistics by groups: beside those of single images, beside brute force, and their coverage by simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm, t

from vit_vs_cnn.evaluation.calibration import calibration_error_interval
from vit_vs_cnn.evaluation.clusters import (
    design_effect,
    effective_images,
    mean_interval,
    sign_flip_p_values,
    sums_by_group,
)
from vit_vs_cnn.evaluation.metrics import accuracy_interval, share_interval
from vit_vs_cnn.evaluation.paired_difference import paired_difference
from vit_vs_cnn.evaluation.pairs import compare_all_pairs, verdict
from vit_vs_cnn.evaluation.results import Predictions
from vit_vs_cnn.evaluation.significance import (
    accuracy_difference_interval,
    mcnemar_p_value,
    mid_p_value,
)

DIFFERENCES = st.lists(st.tuples(st.integers(-1, 1), st.integers(0, 5)), min_size=1, max_size=40)


def alike(groups: int, size: int, share: float, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Right answers of groups in which all images have the same one."""
    return np.repeat(np.random.default_rng(seed).random(groups) < share, size), np.repeat(np.arange(groups), size)


def test_sums_are_by_any_codes():
    assert sums_by_group(np.array([1, 2, 4, 8]), np.array([7, -1, 7, 3])).tolist() == [2, 8, 5]


def test_images_that_are_all_alike_in_their_group_count_as_one():
    correct, groups = alike(200, 5, 0.7, 0)
    assert design_effect(correct, groups) == pytest.approx(5, rel=0.02)
    assert effective_images(correct, groups, 0.95) == pytest.approx(200, rel=0.03)
    single = share_interval(correct[::5], None, 0.95)
    assert share_interval(correct, groups, 0.95) == pytest.approx(single, abs=0.002)


def test_groups_that_say_nothing_change_next_to_nothing():
    correct = np.random.default_rng(0).random(2000) < 0.8
    groups = np.random.default_rng(1).integers(0, 400, 2000)
    by_images = accuracy_interval(int(correct.sum()), 2000, 0.95)
    assert share_interval(correct, None, 0.95) == pytest.approx(by_images)
    assert share_interval(correct, groups, 0.95) == pytest.approx(by_images, abs=0.003)


def test_where_all_are_right_the_groups_are_counted():
    correct, groups = np.ones(500, np.bool_), np.repeat(np.arange(100), 5)
    low, high = share_interval(correct, groups, 0.95)
    squared = t.ppf(0.975, 99) ** 2
    assert (low, high) == pytest.approx((100 / (100 + squared), 1.0))
    assert accuracy_difference_interval(correct, correct, groups, 0.95)[0] == pytest.approx(-squared / (100 + squared))


def test_one_group_says_nearly_nothing():
    low, high = share_interval(np.arange(50) % 2 == 0, np.zeros(50, np.int64), 0.95)
    assert low < 0.01
    assert high > 0.99
    assert mean_interval(np.linspace(0, 1, 50), np.zeros(50, np.int64), 0.95) == (-math.inf, math.inf)
    labels = np.zeros(50, np.int64)
    probabilities = np.tile(np.array([0.9, 0.1], np.float32), (50, 1))
    assert calibration_error_interval(probabilities, labels, 0.95, np.zeros(50, np.int64)) == (0.0, 1.0)


@given(DIFFERENCES)
def test_the_sign_flip_test_counts_all_signs_of_the_groups(differences: list[tuple[int, int]]):
    gains, groups = (np.array(column) for column in zip(*differences, strict=True))
    sums = sums_by_group(gains, groups)
    totals = np.array([np.dot(signs, sums) for signs in itertools.product((-1, 1), repeat=len(sums))])
    two_sided, below = sign_flip_p_values(gains, groups)
    assert two_sided == pytest.approx((abs(totals) >= abs(sums.sum())).mean())
    assert below == pytest.approx((totals < sums.sum()).mean() + (totals == sums.sum()).mean() / 2)


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_sign_flip_test_of_single_images_is_mcnemars(first_only: int, second_only: int):
    first = np.repeat([True, False, True], [first_only, second_only, 3])
    second = np.repeat([False, True, True], [first_only, second_only, 3])
    singles = np.arange(len(first))
    assert mcnemar_p_value(first, second, singles) == pytest.approx(mcnemar_p_value(first, second))
    below = sign_flip_p_values(first.astype(np.int64) - second, singles)[1]
    assert below == pytest.approx(float(mid_p_value(first_only, second_only)))


def test_many_groups_are_no_burden():
    gains = np.random.default_rng(0).choice([-1, 0, 1], 300_000, p=[0.04, 0.92, 0.04])
    two_sided, _ = sign_flip_p_values(gains, np.repeat(np.arange(60_000), 5))
    z = gains.sum() / np.sqrt(np.square(gains.reshape(-1, 5).sum(axis=1)).sum())
    assert two_sided == pytest.approx(2 * norm.sf(abs(z)), abs=0.01)


def test_a_mean_is_by_groups_that_of_their_means():
    values, groups = np.random.default_rng(0).normal(size=120), np.repeat(np.arange(40), 3)
    means = values.reshape(40, 3).mean(axis=1)
    half_width = t.ppf(0.975, 39) * means.std(ddof=1) / np.sqrt(40)
    expected = (means.mean() - half_width, means.mean() + half_width)
    assert mean_interval(values, groups, 0.95) == pytest.approx(expected)
    assert mean_interval(values, np.arange(120), 0.95) == pytest.approx(mean_interval(values, None, 0.95))


def predictions(ease: NDArray[np.float64], labels: NDArray[np.int64], noise: NDArray[np.float64]) -> Predictions:
    groups = np.repeat(np.arange(len(ease)), len(labels) // len(ease))
    logits = noise.copy()
    logits[np.arange(len(labels)), labels] += ease[groups]
    exponentials = np.exp(logits)
    probabilities = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return Predictions((), labels, probabilities.argmax(axis=1), probabilities, tuple(map(str, groups)))


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "nll"])
def test_the_difference_of_two_equal_models_is_covered_as_often_as_the_interval_says(metric: str):
    """By images it is in 70 to 84 % of rounds; `benchmarks/group_intervals.py` has more rounds."""
    rng, covered = np.random.default_rng(0), np.zeros(2)
    for _ in range(300):
        labels = rng.integers(0, 3, 200)
        pair = [predictions(rng.normal(2.5, 2.0, 40), labels, rng.normal(size=(200, 3))) for _ in range(2)]
        alone = [Predictions((), one.labels, one.predicted, one.probabilities) for one in pair]
        for position, (first, second) in enumerate((pair, alone)):
            found = paired_difference(metric, first, second, 0.95)  # type: ignore[arg-type]
            covered[position] += found.low <= 0 <= found.high
    by_groups, by_images = covered / 300
    assert 0.915 <= by_groups <= 0.985
    assert by_images < 0.88
    assert found.groups is None


def test_the_calibration_errors_interval_resamples_groups():
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 3, 60), 5)
    found = predictions(rng.normal(2.5, 2.0, 60), labels, np.repeat(rng.normal(size=(60, 3)), 5, axis=0))
    low, high = calibration_error_interval(found.probabilities, labels, 0.95, found.group_codes)
    of_images = calibration_error_interval(found.probabilities, labels, 0.95)
    assert high - low > 1.5 * (of_images[1] - of_images[0])
    singles = calibration_error_interval(found.probabilities, labels, 0.95, np.arange(300))
    assert singles == pytest.approx(of_images, abs=0.01)


def test_what_is_said_names_the_groups_and_the_test():
    first, groups = alike(60, 5, 0.9, 0)
    second, _ = alike(60, 5, 0.6, 1)
    (by_images,) = compare_all_pairs({"vit": first[None], "resnet": second[None]}, 0.95, 0.01)
    (pair,) = compare_all_pairs({"vit": first[None], "resnet": second[None]}, 0.95, 0.01, groups)
    assert (pair.groups, pair.difference) == (60, by_images.difference)
    assert pair.high - pair.low > 2 * (by_images.high - by_images.low)
    assert pair.p_value > by_images.p_value
    assert "both by the 60 groups of these images; sign-flip p " in verdict(pair)
    assert "McNemar p" in verdict(by_images)
