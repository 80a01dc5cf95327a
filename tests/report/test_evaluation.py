"""The charts of one contestant: what they draw, for few classes and for many."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.evaluation.metrics import evaluate
from vit_vs_cnn.evaluation.results import Evaluation
from vit_vs_cnn.report.class_axes import OMITTED, class_rows
from vit_vs_cnn.report.evaluation import confusion_figure, per_class_figure, reliability_figure, save_evaluation_figures


def evaluation_of(classes: int) -> Evaluation:
    rng = np.random.default_rng(0)
    labels = np.arange(10 * classes) % classes
    weights = rng.random((len(labels), classes)) + 2 * np.eye(classes)[labels] * (rng.random((len(labels), 1)) > 0.2)
    probabilities = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    split = Split(np.zeros((len(labels), 1, 1, 3), np.uint8), labels, tuple(map(str, range(len(labels)))))
    return evaluate(probabilities, split, tuple(f"class {index}" for index in range(classes)), 0.95)


@pytest.mark.parametrize("classes", [2, 10, 120])
def test_three_pictures_for_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    save_evaluation_figures(tmp_path, "swin", evaluation_of(classes), "#0072B2")
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.png", "reliability.png", "per_class.png"}
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert max(picture.size) < 2500
            assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 10


def test_confusion_has_its_counts_where_there_is_room() -> None:
    few = evaluation_of(4)
    axes = confusion_figure(few.confusion, few.classes, "few").axes[0]
    counts = [int(text.get_text()) for text in axes.texts if text.get_text()]
    assert sorted(counts) == sorted(few.confusion[few.confusion > 0])
    many = evaluation_of(30)
    assert not confusion_figure(many.confusion, many.classes, "many").axes[0].texts


def test_confusion_is_coloured_by_the_share_of_the_true_class() -> None:
    axes = confusion_figure(np.array([[90, 10], [0, 0]]), ("a", "b"), "title").axes[0]
    assert np.asarray(axes.collections[0].get_array()).tolist() == [[90, 10], [0, 0]]


def test_no_more_than_a_hundred_names_along_a_matrix() -> None:
    many = evaluation_of(120)
    axes = confusion_figure(many.confusion, many.classes, "many").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"class {index}" for index in range(0, 120, 2)]


def test_reliability_shows_accuracy_by_confidence_and_the_error_without_empty_bins() -> None:
    evaluation = evaluation_of(10)
    figure = reliability_figure({"swin": evaluation}, {"swin": "#0072B2"})
    diagram, histogram = figure.axes
    filled = evaluation.reliability[evaluation.reliability["images"] > 0]
    assert len(filled) < len(evaluation.reliability)
    for container in diagram.containers:
        dots, _, (intervals,) = container.lines
        np.testing.assert_array_equal(dots.get_xydata(), filled[["confidence", "accuracy"]].to_numpy())
        low, high = np.array(intervals.get_segments())[:, :, 1].T
        assert (low <= filled["accuracy"] + 1e-9).all()
        assert (high >= filled["accuracy"] - 1e-9).all()
        assert (high - low > 0.01).all()
    name = "expected_calibration_error"
    error, low, high = (100 * getattr(evaluation.metrics, name + end) for end in ("", "_low", "_high"))
    shown = f"{error:.1f} ({low:.1f} to {high:.1f})"
    legend = ["perfect", f"swin, ECE {shown} points\nlight: {shown}"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == legend
    shares = histogram.patches[0].get_data().values
    assert shares.sum() == pytest.approx(100)


def test_reliability_has_dots_of_each_contestant() -> None:
    evaluations = {"swin": evaluation_of(10), "vgg": evaluation_of(4)}
    figure = reliability_figure(evaluations, {"swin": "#0072B2", "vgg": "#D55E00"})
    dots = [container.lines[0] for container in figure.axes[0].containers]
    assert [(line.get_color(), line.get_alpha()) for line in dots] == [
        ("#0072B2", 0.3), ("#0072B2", None), ("#D55E00", 0.3), ("#D55E00", None),
    ]  # fmt: skip


def test_reliability_of_earlier_versions_has_dots_without_bars() -> None:
    evaluation = evaluation_of(10)
    kept = [column for column in evaluation.reliability if not str(column).endswith(("accuracy_low", "accuracy_high"))]
    unknown = dict.fromkeys(f"uncalibrated_expected_calibration_error{end}" for end in ("_low", "_high"))
    old = replace(
        evaluation, reliability=evaluation.reliability[kept], metrics=evaluation.metrics.model_copy(update=unknown)
    )
    figure = reliability_figure({"swin": old}, {"swin": "#0072B2"})
    figure.canvas.draw()
    own = 100 * (evaluation.metrics.uncalibrated_expected_calibration_error or 0.0)
    assert figure.legends[0].get_texts()[1].get_text().endswith(f"light: {own:.1f}")
    assert [len(container.lines[0].get_xdata()) for container in figure.axes[0].containers] == 2 * [
        (old.reliability["images"] > 0).sum()
    ]


def test_the_legend_of_the_reliability_of_three_lies_within_the_figure() -> None:
    names = ("resnet", "hybrid", "swin")
    figure = reliability_figure(dict.fromkeys(names, evaluation_of(10)), dict.fromkeys(names, "#0072B2"))
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


def test_classes_stand_in_the_order_of_their_f1_with_the_best_on_top() -> None:
    evaluation = evaluation_of(10)
    axes = per_class_figure(evaluation.per_class, "title").axes[0]
    names = dict(zip(axes.get_yticks().tolist(), [label.get_text() for label in axes.get_yticklabels()], strict=True))
    assert axes.yaxis_inverted(), "the first row is at the top"
    by_row = [names[row] for row in sorted(names)]
    ordered = evaluation.per_class.sort_values("f1", ascending=False, kind="stable")
    assert by_row == ordered["class"].tolist()


def test_of_many_classes_the_best_and_the_worst_are_shown() -> None:
    values = np.random.default_rng(0).permutation(100).astype(float)
    rows = class_rows(pd.Series(values))
    assert [values[row] for row in rows if row != OMITTED] == [*range(99, 79, -1), *range(19, -1, -1)]
    assert rows.index(OMITTED) == 20


def test_few_classes_are_all_shown_and_those_without_a_score_last() -> None:
    assert class_rows(pd.Series([0.5, np.nan, 0.9])) == [2, 0, 1]


def test_of_many_classes_the_rows_say_how_many_are_between() -> None:
    figure = per_class_figure(evaluation_of(120).per_class, "title")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(names) == 41
    assert names[20] == "(80 classes between)"


def test_the_classes_of_a_matrix_are_in_natural_order() -> None:
    confusion = np.array([[9, 0, 1], [0, 5, 0], [2, 0, 7]])
    axes = confusion_figure(confusion, ("0", "10", "2"), "title").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "2", "10"]
    assert [text.get_text() for text in axes.texts] == ["9", "1", "", "2", "7", "", "", "", "5"]
