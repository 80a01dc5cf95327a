"""The charts of one evaluated contestant."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from vit_vs_cnn.evaluation.calibration import expected_calibration_error
from vit_vs_cnn.evaluation.results import Evaluation
from vit_vs_cnn.report.class_axis import ends_of_order, matrix_side, name_matrix, name_rows
from vit_vs_cnn.report.style import CONTESTANT_COLOURS, NEUTRAL, SEQUENTIAL, new_figure, save_figure

_MOST_COUNTED_CLASSES = 20


def confusion_figure(confusion: NDArray[np.int64], classes: Sequence[str], title: str) -> Figure:
    """What each true class (row) was taken for (column): share of the row as colour, counts where there is room."""
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = matrix_side(len(classes))
    figure = new_figure(side + 2.2, side + 1.2)
    axes = figure.subplots()
    # The square root spreads the small shares: the confusions are what one looks for.
    picture = axes.imshow(100 * share, cmap=SEQUENTIAL, norm=PowerNorm(0.5, 0, 100))
    if len(classes) <= _MOST_COUNTED_CLASSES:
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                colour = "black" if share[row, column] > 0.3 else "white"
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=10)
    name_matrix(axes, classes)
    axes.set_title(title)
    figure.colorbar(picture, label="share of the true class, %", ticks=[0, 5, 20, 50, 100], shrink=0.8)
    return figure


def reliability_figure(reliability: pd.DataFrame, title: str, colour: str) -> Figure:
    """Accuracy against confidence, with a histogram of the confidence below."""
    figure = new_figure(6, 6.4)
    diagram, histogram = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    error = expected_calibration_error(reliability)
    draw_perfect_calibration(diagram)
    left, width = reliability["bin_low"], reliability["bin_high"] - reliability["bin_low"]
    diagram.bar(left, reliability["accuracy"].fillna(0), width, align="edge", color=colour, edgecolor="white")
    filled = reliability[reliability["images"] > 0]
    diagram.plot(filled["confidence"], filled["accuracy"], "o", color="black", markersize=4, label="mean of a bin")
    diagram.set(ylabel="accuracy", ylim=(0, 1.02), title=f"{title}: ECE {100 * error:.1f} points")
    diagram.legend(loc="upper left")
    histogram.bar(left, 100 * reliability["images"] / reliability["images"].sum(), width, align="edge", color=NEUTRAL)
    histogram.set(xlabel="confidence", ylabel="images, %", xlim=(0, 1))
    for axis in (diagram.yaxis, histogram.xaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    return figure


def draw_perfect_calibration(axes: Axes) -> None:
    """The diagonal on which a model is right exactly as often as it says."""
    axes.plot([0, 1], [0, 1], linestyle="--", color=NEUTRAL, label="perfect", zorder=3)


def per_class_figure(per_class: pd.DataFrame, title: str) -> Figure:
    """Precision, recall and F1 of each class as dots, the best class at the top."""
    shown, rows = ends_of_order(per_class["f1"].to_numpy())
    figure = new_figure(7, 1.7 + 0.27 * (rows.max() + 1))
    axes = figure.subplots()
    lowest = per_class.loc[shown, ["precision", "recall"]].min(axis=1)
    highest = per_class.loc[shown, ["precision", "recall"]].max(axis=1)
    axes.hlines(rows, lowest, highest, color=NEUTRAL, linewidth=1.5, zorder=2)
    for score, marker, colour in zip(("precision", "recall", "f1"), "v^o", CONTESTANT_COLOURS[2:5], strict=True):
        name = "F1" if score == "f1" else score
        axes.scatter(per_class.loc[shown, score], rows, marker=marker, color=colour, s=38, label=name, zorder=3)
    name_rows(axes, list(per_class["class"]), shown, rows)
    axes.set(xlabel="score on the test images", title=title)
    axes.set_xlim(min(0.9, float(lowest.min()) - 0.02), 1.01)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def save_evaluation_figures(folder: Path, name: str, evaluation: Evaluation, colour: str) -> None:
    """Write confusion.png, reliability.png and per_class.png of contestant `name` into `folder`."""
    title = f"{name}, {evaluation.metrics.images:,} test images"
    confusion = confusion_figure(evaluation.confusion, evaluation.classes, title)
    save_figure(confusion, folder / "confusion.png")
    save_figure(reliability_figure(evaluation.reliability, name, colour), folder / "reliability.png")
    save_figure(per_class_figure(evaluation.per_class, title), folder / "per_class.png")
