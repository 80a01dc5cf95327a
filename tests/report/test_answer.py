"""The answer of a comparison in words, and what weakens it."""

from collections.abc import Callable

import numpy as np
import pytest

from factories import contestant, of_two
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import evaluated
from vit_vs_cnn.data.checks import Checks, Kind
from vit_vs_cnn.data.dataset import DatasetInfo, Split
from vit_vs_cnn.evaluation.metrics import evaluate
from vit_vs_cnn.evaluation.results import Views, read_evaluation, write_evaluation
from vit_vs_cnn.report.answer import (
    answer,
    duplicates_sentence,
    validation_sentence,
    views_sentences,
    weaknesses,
)
from vit_vs_cnn.report.comparison import read_comparison
from vit_vs_cnn.tuning.summary import TuningSummary

Make = Callable[..., Settings]
TUNED = TuningSummary(trials=8)
CLEAN = Checks(images=1000, counts={}, findings=())


@pytest.fixture(autouse=True)
def _in_a_project(prepared: DatasetInfo) -> None:
    """Every test writes into its own project."""


@pytest.fixture
def three(make_settings: Make) -> Settings:
    return make_settings({"models": {"third": {"timm": "convnext_atto"}}})


def of_seeds(settings: Settings, **errors: list[int]) -> None:
    """Contestants with so many errors by seed, each on the first images."""
    for name, counts in errors.items():
        for seed, count in zip(settings.seeds, counts, strict=True):
            contestant(settings, name, count, seed=seed)


def test_a_clear_difference_names_the_better_one_whichever_it_is(settings: Settings) -> None:
    of_two(settings, 90, 30)
    comparison = read_comparison(settings)
    assert answer(comparison) == (
        "In this one training of each, resnet is better by 20.0 points (15.9 to 24.9): it is right on 90.0 % of the "
        "test images, vit on 70.0 %. An epoch of vit takes 4.0 times as long as one of resnet."
    )
    assert "resnet is right on 20.0 points more than vit" in comparison.sentences[0]


def test_a_small_difference_has_no_winner(settings: Settings) -> None:
    of_two(settings, 31, 30)
    assert duplicates_sentence(read_comparison(settings)) is None
    assert answer(read_comparison(settings)).startswith(
        "In this one training of each, no winner: resnet is right on 90.0 % of the test images, vit on 89.7 %, a "
        "difference of 0.3 points (−0.9 to 1.9) that may be chance. For these trainings about 860 such test images "
        "would settle it. An epoch of vit"
    )


def test_of_three_the_two_best_may_be_tied(three: Settings) -> None:
    for name, errors in (("vit", 30), ("resnet", 31), ("third", 120)):
        contestant(three, name, errors)
    comparison = read_comparison(three)
    assert len(comparison.pairs) == 3
    assert all("adjusted for 3 pairs" in sentence for sentence in comparison.sentences)
    assert answer(comparison) == (
        "In this one training of each, vit is right on 90.0 % of the test images, resnet on 89.7 %, third on 60.0 %. "
        "It is better than third by more than chance and not shown to be better than resnet. For these trainings about "
        "860 such test images would settle it. Their epochs take about the same time."
    )


def test_of_three_one_may_be_the_best(three: Settings) -> None:
    for name, errors in (("vit", 90), ("resnet", 5), ("third", 120)):
        contestant(three, name, errors)
    assert answer(read_comparison(three)).startswith(
        "In this one training of each, resnet is the best: it is right on 98.3 %"
    )


def test_one_alone_is_compared_with_nobody(settings: Settings) -> None:
    alone = settings.model_copy(update={"models": {"vit": settings.models["vit"]}})
    contestant(alone, "vit", 30)
    comparison = read_comparison(alone)
    assert answer(comparison).endswith("there is no other contestant to compare it with.")
    assert validation_sentence(comparison) is None
    assert comparison.pairs == ()


def test_where_the_classes_are_unbalanced_the_recall_of_the_smallest_stands_beside_the_accuracy(
    settings: Settings,
) -> None:
    of_two(settings, 90, 30)
    labels = np.repeat([0, 1, 2], [60, 20, 4])
    for name, found in (("vit", 1), ("resnet", 3)):
        predicted = np.where(np.arange(84) < 80 + found, labels, 0)
        probabilities = np.full((84, 3), 0.1, np.float32)
        probabilities[np.arange(84), predicted] = 0.8
        split = Split(np.zeros((84, 8, 8, 3), np.uint8), labels, tuple(map(str, range(84))))
        write_evaluation(evaluated(name, 0), evaluate(probabilities, split, ("cat", "dog", "emu"), 0.95))
    sentence = "Recall of emu, the smallest class with 4 test images: resnet 75.0 %, vit 25.0 %."
    assert sentence in answer(read_comparison(settings))
    alone = settings.model_copy(update={"models": {"vit": settings.models["vit"]}})
    assert answer(read_comparison(alone)).endswith("with 4 test images: vit 25.0 %.")


@pytest.mark.parametrize(
    ("vit", "resnet", "expected"),
    [
        (
            {"pretraining_images": 14_197_122, "parameters": 85_806_346},
            {"pretraining_images": 1_281_167, "parameters": 11_181_642},
            "They differ in pretraining data (vit 14M, resnet 1.3M images) and size (vit 86M, resnet 11M parameters), "
            "so this is not architecture alone.",
        ),
        (
            {"pretraining_images": 0},
            {"pretraining_images": 2_000_000_000},
            "They differ in pretraining data (resnet 2.0B, vit no images), so this is not architecture alone.",
        ),
        (
            {"pretraining_images": None},
            {"pretraining_images": 0, "parameters": 2001},
            "They differ in pretraining data (vit unknown, resnet no images) and size (resnet 2.0k, vit 1.0k "
            "parameters), so this is not architecture alone.",
        ),
        ({"pretraining_images": 0}, {"pretraining_images": 0, "parameters": 2000}, None),
        ({"pretraining_images": None}, {"pretraining_images": None}, None),
        ({"pretraining_images": 1_281_167}, {"pretraining_images": 2_562_334}, None),
    ],
)
def test_the_answer_warns_where_more_than_architecture_differs(
    settings: Settings, vit: dict[str, int | None], resnet: dict[str, int | None], expected: str | None
) -> None:
    contestant(settings, "vit", 90, **vit)
    contestant(settings, "resnet", 30, **resnet)
    comparison = read_comparison(settings)
    last = "Their epochs take about the same time."
    assert answer(comparison).endswith(f"{last} {expected}" if expected else last)


def test_of_three_the_furthest_apart_are_named(three: Settings) -> None:
    for name, parameters in (("vit", 1_500_000), ("resnet", 1_000_000), ("third", 2_300_000)):
        contestant(three, name, 30, parameters=parameters)
    assert "size (third 2.3M, resnet 1.0M parameters)" in answer(read_comparison(three))


@pytest.mark.parametrize(
    ("resnet_errors", "expected"),
    [
        (30, "On validation resnet was ahead with 80.0 %, and test bears it out."),
        (90, "On validation resnet was ahead with 80.0 %; the test images do not show that it is better than vit."),
        (120, "On validation resnet was ahead with 80.0 %; the test images do not show that it is better than vit."),
    ],
)
def test_the_best_on_validation_is_no_winner_unless_test_says_so(
    settings: Settings, resnet_errors: int, expected: str
) -> None:
    contestant(settings, "vit", 90, val_accuracy=0.7)
    contestant(settings, "resnet", resnet_errors, val_accuracy=0.8)
    assert validation_sentence(read_comparison(settings)) == expected


def test_accuracy_without_images_that_train_has_too_is_one_sentence(settings: Settings) -> None:
    contestant(settings, "vit", 30, duplicates=range(100, 200))
    contestant(settings, "resnet", 60, duplicates=range(100, 200))
    assert duplicates_sentence(read_comparison(settings)) == (
        "Train has an identical or nearly identical image of 100 of the 300 test images; right on the others: "
        "vit 85.0 %, resnet 70.0 %."
    )


def test_views_are_a_sentence_for_each_contestant_that_has_them(settings: Settings) -> None:
    of_two(settings, 60, 30)
    assert views_sentences(read_comparison(settings)) == []
    metrics = read_evaluation(evaluated("vit", 0)).metrics
    views = Views(forwards=6, accuracy=0.82, accuracy_low=0.8, accuracy_high=0.84, gained=10, lost=4)
    metrics.model_copy(update={"views": views}).write(evaluated("vit", 0) / "metrics.json")
    assert views_sentences(read_comparison(settings)) == [
        "Averaged over 6 views of each image, at 6 times the time, vit is right on 82.0 % instead of 80.0 %: on 10 "
        "images more and 4 fewer."
    ]


def test_views_of_several_trainings_are_means_as_the_table_has_them(make_settings: Make) -> None:
    settings = make_settings({"seeds": [0, 1, 2]})
    of_seeds(settings, vit=[60, 63, 57], resnet=[30, 33, 27])
    for seed, accuracy in enumerate((0.81, 0.84, 0.87)):
        metrics = read_evaluation(evaluated("vit", seed)).metrics
        views = Views(forwards=2, accuracy=accuracy, accuracy_low=0.8, accuracy_high=0.9, gained=10 + seed, lost=4)
        metrics.model_copy(update={"views": views}).write(evaluated("vit", seed) / "metrics.json")
    (sentence,) = views_sentences(read_comparison(settings))
    assert "vit is right on 84.0 % instead of 80.0 %: on 11 images more and 4 fewer." in sentence


def test_over_several_seeds_the_answer_counts_the_chance_in_training(make_settings: Make) -> None:
    settings = make_settings({"seeds": [0, 1, 2]})
    of_seeds(settings, vit=[90, 84, 96], resnet=[30, 33, 27])
    comparison = read_comparison(settings)
    assert answer(comparison).startswith("Over 3 trainings of each, resnet is better by 20.0 points (")
    assert comparison.pairs[0].low < -0.2 < comparison.pairs[0].high < -0.1
    assert weaknesses(comparison, settings, {"vit": TUNED, "resnet": TUNED}, CLEAN) == []


def test_a_difference_that_one_pair_of_trainings_shows_may_not_hold_over_several(make_settings: Make) -> None:
    errors = {"vit": [60, 24, 33], "resnet": [30, 33, 54]}
    one, three_seeds = make_settings({}), make_settings({"seeds": [0, 1, 2]})
    of_seeds(three_seeds, **errors)
    assert "resnet is better by 10.0 points" in answer(read_comparison(one))
    assert answer(read_comparison(three_seeds)).startswith("Over 3 trainings of each, no winner: ")


def test_contestants_within_the_margin_whatever_the_chance_are_practically_equal(make_settings: Make) -> None:
    settings = make_settings({"seeds": [0, 1, 2], "compare": {"margin": 0.05}})
    of_seeds(settings, vit=[30, 31, 30], resnet=[31, 30, 31])
    assert "vit and resnet are practically equal: vit is right on 89.9 %" in answer(read_comparison(settings))
    assert ", all of it within 5 points." in answer(read_comparison(settings))


def test_the_answer_names_its_own_weaknesses(settings: Settings) -> None:
    contestant(settings, "vit", 30, collapsed=True, still_rising=True)
    contestant(settings, "resnet", 30, first_error=15, still_rising=True)
    searches = {"vit": TuningSummary(), "resnet": TuningSummary(trials=8, at_edge=("recipe.optimizer.lr",))}
    assert weaknesses(read_comparison(settings), settings, searches, CLEAN) == [
        "A training of vit collapsed: it predicts one class for nearly all images. Its result says nothing of the "
        "architecture; try a tenth of its learning rate.",
        "One training of each: another seed gives other numbers, and perhaps another order. seeds: [0, 1, 2] trains "
        "each three times and counts that in.",
        "The recipe of vit was not tuned (tune.trials: 0): these images may have a better one.",
        "The best trial of resnet lies at the edge of its range in recipe.optimizer.lr: a wider range may hold a "
        "better one.",
        "Validation was still rising in the last epoch of vit and resnet: more epochs may change the answer.",
        "300 test images are few: of these trainings, a difference below about 3.6 points may be chance, and from 1 on "
        "it would count as one (compare.margin).",
    ]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("group_leakage", "Train and test share groups (7 are in several splits)"),
        ("possible_group", "File names look as if they held 7 groups, and data.groups is not set"),
    ],
)
def test_groups_that_were_ignored_weaken_the_answer(make_settings: Make, kind: Kind, sentence: str) -> None:
    settings = make_settings({"seeds": [0, 1, 2]})
    of_seeds(settings, vit=[90, 84, 96], resnet=[30, 33, 27])
    checks = Checks(images=1000, counts={kind: 7}, findings=())
    (weakness,) = weaknesses(read_comparison(settings), settings, {"vit": TUNED, "resnet": TUNED}, checks)
    assert weakness.startswith(sentence)


def test_few_groups_weaken_the_answer(settings: Settings) -> None:
    for name, errors in (("vit", 90), ("resnet", 30)):
        contestant(settings, name, errors, groups=tuple(f"person {row % 19}" for row in range(300)))
    found = weaknesses(read_comparison(settings), settings, {"vit": TUNED, "resnet": TUNED}, CLEAN)
    assert "Test has few groups (19): fewer than 20 say little of others." in found


def test_who_was_ahead_on_validation_is_said_by_the_metric_that_chooses(settings: Settings) -> None:
    contestant(settings, "vit", 120, val_accuracy=0.9, select_by="macro_f1", val_macro_f1=0.4)
    contestant(settings, "resnet", 30, val_accuracy=0.8, select_by="macro_f1", val_macro_f1=0.6)
    expected = "On validation resnet was ahead with 60.0 % macro f1, and test bears it out."
    assert validation_sentence(read_comparison(settings)) == expected
