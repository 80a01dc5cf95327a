"""All pairs of contestants: the answers, what they allow for, and the sentences they become."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from vit_vs_cnn.evaluation.pairs import PairedComparison, compare_all_pairs, verdict
from vit_vs_cnn.evaluation.significance import holm


def paired(both: int, first_only: int, second_only: int, neither: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """One training of each, bool (1, N), with these counts of images."""
    counts = [both, first_only, second_only, neither]
    return np.repeat([[True, True, False, False]], counts, axis=1), np.repeat([[True, False, True, False]], counts, 1)


def compared(first_only: int, second_only: int, images: int = 1000) -> PairedComparison:
    first, second = paired(images - first_only - second_only - 10, first_only, second_only, 10)
    (pair,) = compare_all_pairs({"vit": first, "resnet": second}, 0.95, 0.01)
    return pair


def trained(accuracies: tuple[float, ...], others: tuple[float, ...], images: int = 2000) -> PairedComparison:
    """Trainings of these accuracies, which err independently."""
    rng = np.random.default_rng(0)
    first, second = (rng.random((len(shares), images)) < np.array(shares)[:, None] for shares in (accuracies, others))
    (pair,) = compare_all_pairs({"vit": first, "resnet": second}, 0.95, 0.01)
    return pair


def test_chance_alone_is_seldom_called_a_difference() -> None:
    rng = np.random.default_rng(0)
    tables = rng.multinomial(500, [0.8, 0.06, 0.06, 0.08], size=500)
    found = 0
    for counts in tables:
        (pair,) = compare_all_pairs(dict(zip("ab", paired(*counts), strict=True)), 0.95, 0.01)
        found += pair.verdict == "better"
    assert found / len(tables) <= 0.06


def test_every_pair_is_compared_once_and_adjusted_for_their_number() -> None:
    first, second = paired(800, 60, 30, 110)
    third = np.roll(second, 7, axis=1)
    pairs = compare_all_pairs({"a": first, "b": second, "c": third}, 0.95, 0.01)
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair.adjusted_p_value for pair in pairs] == holm([pair.p_value for pair in pairs])
    assert pairs[0].difference == pytest.approx(first.mean() - second.mean())
    assert (pairs[0].first_only, pairs[0].second_only, pairs[0].images) == (60, 30, 1000)


def test_one_contestant_has_no_pair() -> None:
    assert compare_all_pairs({"alone": np.array([[True]])}, 0.95, 0.01) == []


def test_a_clear_difference_is_said_with_its_evidence() -> None:
    pair = compared(40, 19)
    assert (pair.better, pair.verdict) == ("vit", "better")
    sentence = verdict(pair)
    assert sentence.startswith(
        "On these 1,000 test images, in this one training of each, vit is right on 2.1 points more than resnet "
        "(95 % interval "
    )
    assert sentence.endswith("McNemar p = 0.009): the difference is unlikely to be chance.")


def test_the_loser_may_stand_first() -> None:
    pair = compared(19, 40)
    assert pair.better == "resnet"
    sentence = verdict(pair)
    assert "resnet is right on 2.1 points more than vit (95 % interval 0." in sentence
    assert "−" not in sentence


@pytest.mark.parametrize(
    ("first_only", "second_only", "images"), [(5, 0, 100), (7, 1, 100), (12, 4, 300), (30, 16, 1000)]
)
def test_what_the_images_do_not_settle_takes_more_of_them(first_only: int, second_only: int, images: int) -> None:
    pair = compared(first_only, second_only, images)
    assert pair.verdict == "undecided"
    assert pair.images_needed is not None
    assert images < pair.images_needed < 2 * images


def test_a_difference_within_chance_names_no_winner_and_says_what_would_settle_it() -> None:
    pair = compared(30, 25)
    assert (pair.better, pair.verdict, pair.seeds_needed) == (None, "undecided", None)
    assert pair.images_needed is not None
    for times, verdicts in ((0.9, ["undecided"]), (1.1, ["better", "equal"])):
        images = round(times * pair.images_needed)
        assert compared(*(round(count * images / 1000) for count in (30, 25)), images).verdict in verdicts
    assert "interval −" in verdict(pair)
    assert "the difference may be chance, which of the two is better cannot be told from this; about " in verdict(pair)
    assert verdict(pair).endswith("for these two trainings, and more trainings of each say whether others agree.")


def test_an_interval_within_the_margin_is_called_equal() -> None:
    assert compared(0, 0).verdict == "equal"
    assert "resnet are right on exactly the same ones (95 % interval −0.4 to 0.4; " in verdict(compared(0, 0))
    assert "are right equally often" in verdict(compared(12, 12, images=10_000))
    assert verdict(compared(0, 0)).endswith("the two are practically equal, within 1 point.")


def test_a_difference_within_the_margin_can_be_more_than_chance() -> None:
    pair = compared(60, 20, images=10_000)
    assert pair.verdict == "better"
    assert verdict(pair).endswith("the difference is unlikely to be chance, though it is less than 1 point.")


def test_a_tiny_difference_is_not_called_zero() -> None:
    assert "vit is right on less than 0.1 points more than resnet" in verdict(compared(504, 500, images=10_000))


def test_the_sentence_says_when_several_pairs_were_tested() -> None:
    assert "adjusted for 3 pairs" in verdict(compared(40, 19), pairs=3)
    assert "adjusted" not in verdict(compared(40, 19))


def test_where_only_the_test_finds_a_difference_none_is_claimed() -> None:
    pair = replace(compared(40, 19), low=0.0, images_needed=2000)
    assert (pair.better, pair.verdict) == (None, "undecided")
    assert "too little to decide between the two; about 2,000 such test images would settle it" in verdict(pair)


def test_the_adjusted_p_value_decides() -> None:
    assert replace(compared(40, 19), adjusted_p_value=0.063).better is None


def test_the_sentence_says_how_many_trainings_there_were() -> None:
    pair = trained((0.95, 0.94, 0.95), (0.85, 0.86, 0.84))
    assert pair.verdict == "better"
    sentence = verdict(pair)
    assert sentence.startswith("On these 2,000 test images, in the mean of 3 trainings of each, vit is right on ")
    assert "; p " in sentence
    unequal = trained((0.95, 0.94), (0.85, 0.86, 0.84))
    assert "in the mean of 2 trainings of vit and 3 of resnet" in verdict(unequal)


def test_where_trainings_differ_more_of_them_would_settle_it() -> None:
    pair = trained((0.95, 0.90, 0.85), (0.90, 0.87, 0.80))
    assert pair.verdict == "undecided"
    assert pair.training_share == pytest.approx(0.9, abs=0.1)
    assert pair.seeds_needed is not None
    assert pair.seeds_needed > 3
    assert f"about {pair.seeds_needed} trainings of each would settle it" in verdict(pair)


def test_where_images_are_too_few_no_number_of_trainings_would_settle_it() -> None:
    first, second = paired(50, 6, 5, 3)
    rng = np.random.default_rng(0)
    several = [np.repeat(correct, 3, axis=0) ^ (rng.random((3, 64)) < 0.01) for correct in (first, second)]
    (pair,) = compare_all_pairs({"vit": several[0], "resnet": several[1]}, 0.95, 0.01)
    assert (pair.verdict, pair.seeds_needed) == ("undecided", None)
    assert "not even 100 trainings of each would settle it on these images, about " in verdict(pair)


def test_the_confidence_in_the_answers_sums_to_one() -> None:
    clear, open_, equal = compared(100, 19), compared(30, 25), compared(0, 0)
    for pair in (clear, open_, equal):
        parts = pair.probabilities
        assert parts.first_better + parts.equal + parts.second_better == pytest.approx(1)
        assert min(parts.first_better, parts.equal, parts.second_better) >= 0
    assert clear.probabilities.first_better > 0.95
    assert equal.probabilities.equal > 0.95
    assert max(open_.probabilities.first_better, open_.probabilities.equal) < 0.95
