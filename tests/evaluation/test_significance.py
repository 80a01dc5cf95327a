"""Paired tests against known values, their coverage by simulation, and the sentences they become."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vit_vs_cnn.evaluation.significance import (
    PairedComparison,
    bootstrap_interval,
    compare_all_pairs,
    holm,
    mcnemar_p_value,
    verdict,
)

Right = NDArray[np.bool_]


def paired(both: int, first_only: int, second_only: int, neither: int) -> tuple[Right, Right]:
    """Two vectors of right answers with these counts."""
    counts = [both, first_only, second_only, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def compared(first_only: int, second_only: int, images: int = 1000, resamples: int = 5000) -> PairedComparison:
    first, second = paired(images - first_only - second_only - 10, first_only, second_only, 10)
    (pair,) = compare_all_pairs({"vit": first, "resnet": second}, 0.95, resamples, seed=0)
    return pair


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
@given(counts=st.tuples(*[st.integers(0, 40)] * 4).filter(any), seed=st.integers(0, 1000))
def test_the_order_of_the_two_only_changes_the_sign(counts: tuple[int, int, int, int], seed: int) -> None:
    first, second = paired(*counts)
    assert mcnemar_p_value(first, second) == mcnemar_p_value(second, first)
    low, high = bootstrap_interval(first, second, 0.9, 400, seed)
    assert -1 <= low <= high <= 1
    assert bootstrap_interval(first, second, 0.9, 400, seed) == (low, high)


def test_the_interval_is_that_of_drawing_the_images_themselves() -> None:
    first, second = paired(150, 30, 12, 8)
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, len(first), (20_000, len(first)))
    differences = first[drawn].mean(axis=1) - second[drawn].mean(axis=1)
    expected = np.quantile(differences, [0.025, 0.975])
    assert bootstrap_interval(first, second, 0.95, 20_000, seed=0) == pytest.approx(tuple(expected), abs=0.006)


def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    shares = [0.80, 0.08, 0.05, 0.07]
    tables = rng.multinomial(600, shares, size=1000)
    covered = 0
    for seed, counts in enumerate(tables):
        low, high = bootstrap_interval(*paired(*counts), 0.95, 500, seed)
        covered += low <= shares[1] - shares[2] <= high
    # Three standard errors of a share of 95 % in 1,000 simulations are 2.1 points.
    assert covered / len(tables) == pytest.approx(0.95, abs=0.021)


def test_chance_alone_is_seldom_called_a_difference() -> None:
    rng = np.random.default_rng(0)
    tables = rng.multinomial(500, [0.8, 0.06, 0.06, 0.08], size=500)
    found = 0
    for counts in tables:
        (pair,) = compare_all_pairs(dict(zip("ab", paired(*counts), strict=True)), 0.95, 200, seed=0)
        found += pair.is_significant
    assert found / len(tables) <= 0.06


def test_holm_on_known_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_every_pair_is_compared_once_and_adjusted_for_their_number() -> None:
    first, second = paired(800, 60, 30, 110)
    third = np.roll(second, 7)
    pairs = compare_all_pairs({"a": first, "b": second, "c": third}, 0.95, 500, seed=0)
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair.adjusted_p_value for pair in pairs] == holm([pair.p_value for pair in pairs])
    assert pairs[0].difference == pytest.approx(first.mean() - second.mean())
    assert (pairs[0].first_only, pairs[0].second_only, pairs[0].images) == (60, 30, 1000)


def test_one_contestant_has_no_pair() -> None:
    assert compare_all_pairs({"alone": np.array([True])}, 0.95, 100, seed=0) == []


def test_a_clear_difference_is_said_with_its_evidence() -> None:
    pair = compared(40, 19)
    assert pair.better == "vit"
    sentence = verdict(pair)
    assert sentence.startswith("On these 1,000 test images vit is right on 2.1 points more than resnet (95 % interval ")
    assert sentence.endswith("McNemar p = 0.009): the difference is unlikely to be chance.")


def test_the_loser_may_stand_first() -> None:
    pair = compared(19, 40)
    assert pair.better == "resnet"
    sentence = verdict(pair)
    assert "resnet is right on 2.1 points more than vit (95 % interval 0." in sentence
    assert "−" not in sentence


def test_a_difference_within_chance_names_no_winner() -> None:
    pair = compared(30, 25)
    assert pair.better is None
    assert verdict(pair).endswith("the difference may be chance, the two cannot be told apart.")
    assert "interval −" in verdict(pair)


def test_equal_scores_are_called_equal() -> None:
    assert "right equally often" in verdict(compared(12, 12))
    assert "right on exactly the same ones: they cannot be told apart." in verdict(compared(0, 0))


def test_a_tiny_difference_is_not_called_zero() -> None:
    assert "vit is right on less than 0.1 points more than resnet" in verdict(compared(504, 500, images=10_000))


def test_the_sentence_says_when_several_pairs_were_tested() -> None:
    assert "adjusted for 3 pairs" in verdict(compared(40, 19), pairs=3)
    assert "adjusted" not in verdict(compared(40, 19))


def test_where_only_the_test_finds_a_difference_none_is_claimed() -> None:
    pair = PairedComparison("a", "b", 100, 9, 1, 0.08, 0.0, 0.14, 0.95, p_value=0.021, adjusted_p_value=0.021)
    assert pair.better is None
    assert verdict(pair).endswith("too little to tell the two apart.")


def test_the_adjusted_p_value_decides() -> None:
    pair = PairedComparison("a", "b", 100, 9, 1, 0.08, 0.02, 0.14, 0.95, p_value=0.021, adjusted_p_value=0.063)
    assert pair.better is None
