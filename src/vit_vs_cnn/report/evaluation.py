"""The figures of one evaluated contestant."""

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
from vit_vs_cnn.report.class_axes import class_dots, class_matrix
from vit_vs_cnn.report.style import NEUTRAL, SCORE_COLOURS, SEQUENTIAL, new_figure


def save_evaluation_figures(folder: Path, contestant: str, evaluation: Evaluation, colour: str) -> None:
    """Write confusion.png, reliability.png and per_class.png of a contestant into `folder`."""
    title = f"{contestant}, {evaluation.metrics.images:,} test images"
    figures = {
        "confusion": confusion_figure(evaluation.confusion, evaluation.classes, title),
        "reliability": reliability_figure(evaluation.reliability, contestant, colour),
        "per_class": per_class_figure(evaluation.per_class, title),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png")


def confusion_figure(confusion: NDArray[np.int64], classes: Sequence[str], title: str) -> Figure:
    """Confusion matrix: the share of the true class (row) as colour, counts where there is room."""
    # The square root spreads the small shares: the confusions are what one looks for.
    figure = class_matrix(
        confusion_shares(confusion),
        classes,
        np.where(confusion > 0, confusion.astype(str), ""),
        "share of the true class, %",
        cmap=SEQUENTIAL,
        norm=PowerNorm(0.5, 0, 100),
    )
    matrix, colour_bar = figure.axes
    matrix.set_title(title)
    colour_bar.set_yticks([0, 5, 20, 50, 100])
    return figure


def confusion_shares(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """What each true class (row) was taken for, in per cent of the row; 0 for a class without images."""
    shares: NDArray[np.float64] = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    return shares


def reliability_figure(reliability: pd.DataFrame, title: str, colour: str) -> Figure:
    """Accuracy against confidence, with a histogram of the confidence below."""
    figure = new_figure(6, 6.4)
    diagram, histogram = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    draw_perfect_calibration(diagram)
    left, width = reliability["bin_low"], reliability["bin_high"] - reliability["bin_low"]
    diagram.bar(left, reliability["accuracy"].fillna(0), width, align="edge", color=colour, edgecolor="white")
    filled = reliability[reliability["images"] > 0]
    diagram.plot(filled["confidence"], filled["accuracy"], "o", color="black", markersize=4, label="mean of a bin")
    error = expected_calibration_error(reliability)
    diagram.set(ylabel="accuracy", ylim=(0, 1.02), title=f"{title}: ECE {100 * error:.1f} points")
    diagram.legend(loc="upper left")
    histogram.bar(left, 100 * reliability["images"] / reliability["images"].sum(), width, align="edge", color=NEUTRAL)
    histogram.set(xlabel="confidence", ylabel="images, %", xlim=(0, 1))
    for axis in (diagram.yaxis, histogram.xaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    return figure


def draw_perfect_calibration(axes: Axes) -> None:
    """Draw the diagonal on which a model is right exactly as often as its confidence says."""
    axes.plot([0, 1], [0, 1], linestyle="--", color=NEUTRAL, label="perfect", zorder=3)


def per_class_figure(per_class: pd.DataFrame, title: str) -> Figure:
    """Precision, recall and F1 of each class as dots, the best class at the top."""
    scores = per_class[["precision", "recall", "f1"]].rename(columns={"f1": "F1"})
    figure = class_dots(scores, scores["F1"], per_class["class"].tolist(), SCORE_COLOURS, "v^o")
    figure.axes[0].set(xlabel="score on the test images", title=title)
    return figure
