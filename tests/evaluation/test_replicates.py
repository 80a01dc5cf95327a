"""Statistics of replicates: beside those of one training, and their coverage by simulation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm, t

from vit_vs_cnn.evaluation.metrics import share_interval
from vit_vs_cnn.evaluation.replicates import (
    chance_model,
    compare_replicates,
    mean_accuracy,
    repeated_splits_interval,
    training_variance,
)
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
        assert found.chance.confidence_below(found.low) == pytest.approx(0.025, rel=1e-3)


@settings(max_examples=20, deadline=None)
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
            assert found.chance.confidence_below(end) == pytest.approx(confidence, rel=1e-4)
    ends = [found.chance.confidence_below(difference) for difference in np.linspace(-0.3, 0.3, 7)]
    assert ends == sorted(ends)


def test_trainings_that_are_all_the_same_say_as_much_as_one() -> None:
    first, second = random_trainings(0, 1, 500), random_trainings(1, 1, 500, 0.8)
    for pair in ((first, second), (first, first)):
        one = compare_replicates(*pair, 0.95)
        several = compare_replicates(*(np.repeat(correct, 4, axis=0) for correct in pair), 0.95)
        assert (several.low, several.high) == pytest.approx((one.low, one.high), abs=1e-9)
        assert several.training_share == 0.0


def test_a_contestant_with_one_training_is_taken_to_vary_as_much_as_the_other() -> None:
    first, second = random_trainings(0, 1, 500), random_trainings(1, 3, 500, 0.8)
    found = compare_replicates(first, second, 0.95)
    variance, _ = training_variance(second)
    assert [(part.variance, part.degrees, part.seeds) for part in found.chance.trainings] == [
        (variance, 2, 1),
        (variance, 2, 3),
    ]


def test_what_trainings_err_on_differently_is_no_variance_of_training() -> None:
    """All seeds are as good; on these images their accuracies differ by which hard ones each is lucky on."""
    rng = np.random.default_rng(0)
    chances = np.where(np.arange(1000) < 800, 1.0, 0.5)
    found = [training_variance(rng.random((5, 1000)) < chances) for _ in range(300)]
    variances, residuals = np.mean(found, axis=0)
    assert residuals == pytest.approx(0.2 * 0.25 / 1000, rel=0.02)
    assert variances == pytest.approx(residuals, rel=0.15)


def test_by_groups_the_residual_is_of_whole_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 5)
    correct = np.repeat(rng.random((4, 200)) < 0.7, 5, axis=1)
    by_images, by_groups = training_variance(correct)[1], training_variance(correct, groups)[1]
    assert by_groups == pytest.approx(5 * by_images, rel=0.01)
    assert by_groups == pytest.approx(training_variance(correct[:, ::5])[1])


def test_the_reach_is_the_sum_of_variances_times_their_own_squared_quantiles() -> None:
    first, second = random_trainings(0, 3, 400), random_trainings(1, 5, 400, 0.8)
    chance = compare_replicates(first, second, 0.95).chance
    expected = norm.ppf(0.975) ** 2 * chance.image_variance(0.1)
    for correct in (first, second):
        seeds, (variance, residual) = len(correct), training_variance(correct)
        expected += t.ppf(0.975, seeds - 1) ** 2 * max(0, variance - (1 - 1 / seeds) * residual) / seeds
    assert chance.squared_reach(0.1, 0.025) == pytest.approx(expected)


def test_more_seeds_and_more_images_shrink_what_they_are_said_to() -> None:
    chance = compare_replicates(random_trainings(0, 3, 400), random_trainings(1, 3, 400), 0.95).chance
    same, many = chance.with_seeds(3), chance.with_seeds(50)
    assert same.interval(0.95) == pytest.approx(chance.interval(0.95))
    assert many.image_variance(0.0) < chance.image_variance(0.0)
    seeds = chance.seeds_needed(0.05, 0.025)
    assert seeds is not None
    assert not chance.with_seeds(seeds - 1).is_settled(0.05, 0.025)
    times = chance.times_images_needed(0.08, 0.025)
    assert times is not None
    for factor, settled in ((0.99 * times, False), (1.01 * times, True)):
        assert replace(chance, images=factor * chance.images).is_settled(0.08, 0.025) == settled


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("deviation", "images"), [(0.02, 300), (0.15, 300), (0.15, 60)])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(seeds: int, deviation: float, images: int) -> None:
    """The trainings of one differ ten times as much; `benchmarks/replicates.py` has more rounds and settings."""
    rng, held = np.random.default_rng(0), []
    accuracies = [norm.cdf(1.3 / np.sqrt(1 + 0.4**2 + scale**2)) for scale in (deviation, 0.1 * deviation)]
    truth = accuracies[0] - accuracies[1]
    for _ in range(600):
        ease = rng.normal(0, 1, images)
        pair = [
            ease + rng.normal(0, 0.4, (seeds, images)) + rng.normal(0, scale, (seeds, 1)) > -1.3
            for scale in (deviation, 0.1 * deviation)
        ]
        chance = chance_model(*pair)
        held.append((chance.difference - truth) ** 2 <= chance.squared_reach(truth, 0.025))
    # Three standard errors of a share of 95 % in 600 rounds are 2.7 points.
    assert np.mean(held) >= 0.923


def test_the_accuracys_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), []
    for _ in range(600):
        correct = rng.normal(0, 1, 200) + rng.normal(0, 0.4, (3, 200)) + rng.normal(0, 0.15, (3, 1)) > -1.3
        found = mean_accuracy(correct, 0.95)
        held.append(found.low <= norm.cdf(1.3 / np.sqrt(1 + 0.4**2 + 0.15**2)) <= found.high)
    assert 0.923 <= np.mean(held) <= 0.99


def test_the_accuracy_of_perfect_trainings_has_wilsons_interval() -> None:
    found = mean_accuracy(np.ones((3, 100), np.bool_), 0.95)
    assert (found.low, found.high) == pytest.approx(share_interval(np.ones(100, np.bool_), None, 0.95))
    assert found.deviation == 0.0


def test_one_training_gives_wilsons_interval_of_the_accuracy() -> None:
    correct = random_trainings(0, 1, 400)
    found = mean_accuracy(correct, 0.95)
    assert (found.low, found.high) == share_interval(correct[0], None, 0.95)
    assert (found.value, found.deviation, found.seeds) == (correct.mean(), None, 1)


def test_the_corrected_interval_of_repeated_splits() -> None:
    differences = np.array([0.02, 0.05, -0.01, 0.03])
    # One image of 30 more that they differ on.
    variance = (np.square(differences - differences.mean()).sum() + (1 / 30) ** 2) / 3
    error = np.sqrt((1 / 4 + 30 / 120) * variance)
    half_width = t.ppf(0.95, 3) * error
    assert repeated_splits_interval(differences, 120, 30, 0.90) == pytest.approx(
        (differences.mean() - half_width, differences.mean() + half_width)
    )


@pytest.mark.parametrize("splits", [2, 3])
def test_splits_that_happen_to_tie_prove_nothing(splits: int) -> None:
    low, high = repeated_splits_interval(np.full(splits, 0.05), 160, 40, 0.95)
    assert low < 0
    assert high > 0.05
