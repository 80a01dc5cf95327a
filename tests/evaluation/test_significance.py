"""Paired tests against known values, and their coverage by simulation."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import xlogy
from scipy.stats import norm

from vit_vs_cnn.evaluation.significance import (
    class_losses,
    discordant,
    holm,
    mcnemar_p_value,
    mean_discordant,
    mid_p_value,
    tango_interval,
    tango_score,
)

Right = NDArray[np.bool_]


def paired(both: int, first_only: int, second_only: int, neither: int) -> tuple[Right, Right]:
    """Two vectors of right answers with these counts."""
    counts = [both, first_only, second_only, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(("first_only", "second_only"), [(10, 2), (2, 10), (5, 5), (0, 6), (1, 0)])
def test_mcnemar_is_the_exact_binomial_test(first_only: int, second_only: int) -> None:
    discordant, fewer = first_only + second_only, min(first_only, second_only)
    tail = sum(comb(discordant, k) for k in range(fewer + 1)) / 2**discordant
    first, second = paired(30, first_only, second_only, 4)
    assert mcnemar_p_value(first, second) == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_on_a_known_table() -> None:
    # Agresti, Categorical Data Analysis: two polls on a prime minister; his approximate z = 4.17 gives p = 3.1e-5.
    assert mcnemar_p_value(*paired(794, 150, 86, 570)) == pytest.approx(3.7e-5, rel=0.02)


def test_mcnemar_without_a_discordant_image_says_nothing() -> None:
    assert mcnemar_p_value(*paired(50, 0, 0, 50)) == 1.0


@hypothesis_settings(max_examples=30, deadline=None)
@given(counts=st.tuples(*[st.integers(0, 40)] * 4).filter(any))
def test_the_order_of_the_two_does_not_change_mcnemars_test(counts: tuple[int, int, int, int]) -> None:
    first, second = paired(*counts)
    assert mcnemar_p_value(first, second) == mcnemar_p_value(second, first)


# What scoreci.mp of R's package PropCIs prints, which gives (second − first) / n; and the table of Bentur et al. (2009)
# in Fagerland, Lydersen & Laake 2014, Statistics in Medicine 33.
@pytest.mark.parametrize(
    ("first_only", "second_only", "images", "confidence", "low", "high"),
    [
        (60, 20, 1000, 0.95, 0.0231, 0.0584),
        (20, 60, 1000, 0.95, -0.0584, -0.0231),
        (28, 25, 618, 0.90, -0.0148, 0.0247),
        (48, 41, 549, 0.90, -0.0157, 0.0414),
        (1, 7, 21, 0.95, -0.517, -0.026),
    ],
)
def test_tangos_interval_on_published_tables(
    first_only: int, second_only: int, images: int, confidence: float, low: float, high: float
) -> None:
    assert tango_interval(first_only, second_only, images, confidence) == pytest.approx((low, high), abs=6e-5, rel=1e-3)


def test_where_no_image_divides_two_the_interval_has_a_width() -> None:
    # Solved by hand: z² = n·Δ² / (Δ·(1 − Δ)), so Δ = z² / (n + z²).
    squared = 1.959964**2
    low, high = tango_interval(0, 0, 359, 0.95)
    assert (low, high) == pytest.approx((-squared / (359 + squared), squared / (359 + squared)))


@st.composite
def tables(draw: st.DrawFn, most: int = 3000) -> tuple[int, int, int]:
    """Images that only the first and only the second is right on, and all images."""
    images = draw(st.integers(1, most))
    first_only = draw(st.integers(0, images))
    return first_only, draw(st.integers(0, images - first_only)), images


@given(tables(), st.floats(0.51, 0.999))
def test_the_interval_holds_the_difference_and_its_ends_solve_the_score_equation(
    table: tuple[int, int, int], confidence: float
) -> None:
    first_only, second_only, images = table
    low, high = tango_interval(*table, confidence)
    assert -1 <= low <= (first_only - second_only) / images <= high <= 1
    quantile = norm.ppf((1 + confidence) / 2)
    for end, score in ((low, quantile), (high, -quantile)):
        if abs(end) < 1:
            assert tango_score(*table, end) == pytest.approx(score, abs=1e-3)


@given(tables(), st.floats(0.51, 0.98))
def test_exchanging_the_two_mirrors_the_interval_and_more_confidence_widens_it(
    table: tuple[int, int, int], confidence: float
) -> None:
    first_only, second_only, images = table
    low, high = tango_interval(*table, confidence)
    assert tango_interval(second_only, first_only, images, confidence) == pytest.approx((-high, -low), abs=1e-9)
    wider_low, wider_high = tango_interval(*table, confidence + 0.01)
    assert wider_low <= low + 1e-9
    assert high - 1e-9 <= wider_high


@given(tables(most=300), st.integers(-900, 900).map(lambda thousandths: thousandths / 1000))
def test_the_score_is_at_the_most_likely_table_of_that_difference(
    table: tuple[int, int, int], difference: float
) -> None:
    first_only, second_only, images = table
    # With both ends, where a count is zero the maximum may lie there.
    shares = np.linspace(max(0.0, -difference), (1 - difference) / 2, 20_001)
    likelihood = (
        xlogy(first_only, shares + difference)
        + xlogy(second_only, shares)
        + xlogy(images - first_only - second_only, np.clip(1 - 2 * shares - difference, 0, None))
    )
    share = shares[likelihood.argmax()]
    surplus, variance = first_only - second_only - images * difference, 2 * share + difference - difference**2
    z = surplus / np.sqrt(images * variance) if surplus else 0.0
    assert tango_score(*table, difference) == pytest.approx(z, rel=0.01, abs=0.01)


@pytest.mark.parametrize("images", [20, 100, 359, 2000])
@pytest.mark.parametrize("shares", [(0.0, 0.01), (0.01, 0.02), (0.05, 0.06), (0.08, 0.05)])
def test_the_interval_lies_above_the_true_difference_as_seldom_as_it_says(
    images: int, shares: tuple[float, float]
) -> None:
    """The error of the gate: 2.5 % at 95 %, of which the percentile bootstrap made up to 80 % of few images."""
    draws = np.random.default_rng(0).multinomial(images, [*shares, 1 - sum(shares)], size=20_000)
    scores = tango_score(draws[:, 0], draws[:, 1], images, shares[0] - shares[1])
    assert (scores >= norm.ppf(0.975)).mean() <= 0.035


def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    shares = [0.80, 0.08, 0.05, 0.07]
    tables = rng.multinomial(600, shares, size=1000)
    covered = 0
    for _, first_only, second_only, _ in tables:
        low, high = tango_interval(first_only, second_only, 600, 0.95)
        covered += low <= shares[1] - shares[2] <= high
    # Three standard errors of a share of 95 % in 1,000 simulations are 2.1 points.
    assert covered / len(tables) == pytest.approx(0.95, abs=0.021)


def test_several_trainings_have_the_mean_counts_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 50)) < 0.8, rng.random((2, 50)) < 0.7
    pairs = [discordant(right, others) for right in first for others in second]
    assert mean_discordant(first, second) == pytest.approx(np.mean(pairs, axis=0))
    assert mean_discordant(first[:1], second[:1]) == discordant(first[0], second[0])


def test_the_mid_p_value_counts_half_of_the_observed_table() -> None:
    assert mid_p_value(2, 10) == pytest.approx((comb(12, 0) + comb(12, 1) + comb(12, 2) / 2) / 2**12)
    assert mid_p_value(0, 0) == 0.5


def test_class_losses_allow_for_the_number_of_classes() -> None:
    losses, p_values = class_losses(np.array([0, 5, 2]), np.array([8, 5, 1]), np.array([40, 100, 50]))
    assert losses == pytest.approx([0.2, 0.0, -0.02])
    assert p_values == pytest.approx(holm([float(mid_p_value(0, 8)), 0.5, float(mid_p_value(2, 1))]))


def test_holm_on_known_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
