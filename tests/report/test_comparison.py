"""The answer, the tables and the charts of a comparison."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from factories import contestant
from vit_vs_cnn.cli.pipeline import results_table
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import COMPARE, evaluated
from vit_vs_cnn.data.dataset import DatasetInfo, Split
from vit_vs_cnn.evaluation.metrics import evaluate
from vit_vs_cnn.evaluation.results import Views, read_evaluation, write_evaluation
from vit_vs_cnn.report.comparison import (
    answer,
    comparison_table,
    duplicates_sentence,
    read_comparison,
    training_sentences,
    validation_sentence,
    views_sentences,
    write_tables,
)
from vit_vs_cnn.report.comparison_figures import (
    accuracy_and_cost,
    confusion_difference,
    learning_curves,
    recall_by_class,
)
from vit_vs_cnn.report.style import CONTESTANT_COLOURS

Make = Callable[..., Settings]
VIT_COLOUR, RESNET_COLOUR = CONTESTANT_COLOURS[:2]


@pytest.fixture(autouse=True)
def _in_a_project(prepared: DatasetInfo) -> None:
    """Every test writes into its own project."""


@pytest.fixture
def three(make_settings: Make) -> Settings:
    return make_settings({"models": {"third": {"timm": "convnext_atto"}}})


def of_two(settings: Settings, first_errors: int, second_errors: int) -> None:
    contestant(settings, "vit", first_errors, seconds=4.0)
    contestant(settings, "resnet", second_errors, seconds=1.0)


def labels_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_clear_difference_names_the_better_one_whichever_it_is(settings: Settings) -> None:
    of_two(settings, 90, 30)
    comparison = read_comparison(settings)
    assert answer(comparison) == (
        "resnet is better: it is right on 90.0 % of the test images, vit on 70.0 %, more than chance explains. "
        "An epoch of vit takes 4.0 times as long as one of resnet."
    )
    assert "resnet is right on 20.0 points more than vit" in comparison.sentences[0]


def test_a_small_difference_has_no_winner(settings: Settings) -> None:
    of_two(settings, 31, 30)
    assert duplicates_sentence(read_comparison(settings)) is None
    assert answer(read_comparison(settings)).startswith(
        "No winner: resnet is right on 90.0 % of the test images, vit on 89.7 %, a difference that may be chance."
    )


def test_of_three_the_two_best_may_be_tied(three: Settings) -> None:
    for name, errors in (("vit", 30), ("resnet", 31), ("third", 120)):
        contestant(three, name, errors)
    comparison = read_comparison(three)
    assert len(comparison.pairs) == 3
    assert all("adjusted for 3 pairs" in sentence for sentence in comparison.sentences)
    assert answer(comparison) == (
        "vit is right on 90.0 % of the test images, resnet on 89.7 %, third on 60.0 %. It is better than third by more "
        "than chance and cannot be told apart from resnet. Their epochs take about the same time."
    )
    assert list(comparison_table(comparison)["contestant"]) == ["vit", "resnet", "third"]


def test_of_three_one_may_be_the_best(three: Settings) -> None:
    for name, errors in (("vit", 90), ("resnet", 5), ("third", 120)):
        contestant(three, name, errors)
    assert answer(read_comparison(three)).startswith("resnet is the best: it is right on 98.3 %")


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


def test_contestants_measured_on_other_images_are_not_compared(settings: Settings) -> None:
    contestant(settings, "vit", 30)
    contestant(settings, "resnet", 30, first_image="another")
    with pytest.raises(UserError, match="evaluated/resnet: was measured on other test images than vit"):
        read_comparison(settings)


def test_tables_and_the_terminal_say_the_same(settings: Settings) -> None:
    of_two(settings, 90, 30)
    comparison = read_comparison(settings)
    write_tables(comparison, COMPARE)
    table = results_table(Path())
    assert "95 % interval" in table
    assert re.search(r"vit +70\.00% +64\.\d+% – 74\.\d+% +4\.0 +1,000 +1\.0 ms", table)
    verdicts = json.loads((COMPARE / "significance.json").read_text())
    assert table.endswith(verdicts["answer"])
    assert verdicts["pairs"][0]["better"] == "resnet"
    assert verdicts["pairs"][0]["sentence"] == comparison.sentences[0]
    assert pd.read_csv(COMPARE / "comparison.csv")["accuracy"].tolist() == [0.7, 0.9]
    summary = json.loads((COMPARE / "summary.json").read_text())
    assert summary["difference_vit_resnet"] == pytest.approx(-0.2)
    assert summary["accuracy_vit"] == 0.7
    assert all(isinstance(value, float) for value in summary.values())


def test_the_terminal_names_the_confidence_even_of_one_alone(make_settings: Make) -> None:
    settings = make_settings({"evaluate": {"confidence": 0.9}})
    alone = settings.model_copy(update={"models": {"vit": settings.models["vit"]}})
    contestant(alone, "vit", 30)
    write_tables(read_comparison(alone), COMPARE)
    assert "90 % interval" in results_table(Path())


def test_learning_curves_show_train_validation_and_the_chosen_epoch(settings: Settings) -> None:
    of_two(settings, 90, 30)
    figure = learning_curves(read_comparison(settings), "elapsed_seconds", "seconds")
    accuracy = figure.axes[0]
    assert labels_of(figure) == ["vit", "resnet"]
    train, val, chosen = accuracy.lines[:3]
    assert train.get_xydata().tolist() == [[4.0, 0.5], [8.0, 0.5]]
    assert val.get_xydata() == pytest.approx(np.array([[4.0, 0.6], [8.0, 0.7]]))
    assert chosen.get_xydata() == pytest.approx(np.array([[8.0, 0.7]]))
    assert {line.get_color() for line in accuracy.lines} == {VIT_COLOUR, RESNET_COLOUR}


def test_accuracy_stands_over_each_cost_with_its_interval(settings: Settings) -> None:
    of_two(settings, 90, 30)
    comparison = read_comparison(settings)
    figure = accuracy_and_cost(comparison)
    assert len(figure.axes) == 3
    (point, _, (bar,)) = figure.axes[0].containers[0].lines
    assert point.get_xydata().tolist() == [[4.0, 0.7]]
    metrics = comparison.contestants[0].evaluation.metrics
    assert bar.get_segments()[0][:, 1].tolist() == pytest.approx([metrics.accuracy_low, metrics.accuracy_high])


def test_recall_of_each_class_for_each_contestant(settings: Settings) -> None:
    of_two(settings, 90, 30)
    evaluations = {contestant.name: contestant.evaluation for contestant in read_comparison(settings).contestants}
    axes = recall_by_class(evaluations, {"vit": VIT_COLOUR, "resnet": RESNET_COLOUR}).axes[0]
    dots = [np.asarray(collection.get_offsets())[:, 0].tolist() for collection in axes.collections[1:]]
    assert dots == [pytest.approx([0.7] * 3), pytest.approx([0.9] * 3)]


def test_confusion_difference_is_in_points_of_the_true_class(settings: Settings) -> None:
    of_two(settings, 90, 30)
    figure = confusion_difference(*read_comparison(settings).contestants)
    shown = np.asarray(figure.axes[0].collections[0].get_array())
    assert np.diag(shown).tolist() == pytest.approx([-20.0] * 3)
    assert shown.sum(axis=1).tolist() == pytest.approx([0.0] * 3)


def test_what_is_wrong_with_a_training_is_said_beside_the_answer(settings: Settings) -> None:
    contestant(settings, "vit", 30, collapsed=True, still_rising=True)
    contestant(settings, "resnet", 30, still_rising=True)
    assert training_sentences(read_comparison(settings)) == [
        "The training of vit collapsed: it predicts one class for nearly all images. Its result says nothing of the "
        "architecture; try a tenth of its learning rate.",
        "Validation was still rising in the last epoch of vit and resnet: more epochs may change the answer.",
    ]


def test_who_was_ahead_on_validation_is_said_by_the_metric_that_chooses(settings: Settings) -> None:
    contestant(settings, "vit", 120, val_accuracy=0.9, select_by="macro_f1", val_macro_f1=0.4)
    contestant(settings, "resnet", 30, val_accuracy=0.8, select_by="macro_f1", val_macro_f1=0.6)
    expected = "On validation resnet was ahead with 60.0 % macro f1, and test bears it out."
    assert validation_sentence(read_comparison(settings)) == expected
