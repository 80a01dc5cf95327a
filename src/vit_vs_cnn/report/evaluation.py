"""The figures of one evaluated contestant."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vit_vs_cnn.core.console import points
from vit_vs_cnn.evaluation.results import Evaluation, Metrics
from vit_vs_cnn.report.class_axes import class_dots, class_matrix
from vit_vs_cnn.report.fonts import save_figure
from vit_vs_cnn.report.style import NEUTRAL, SCORE_COLOURS, SEQUENTIAL, new_figure


def save_evaluation_figures(folder: Path, contestant: str, evaluation: Evaluation, colour: str) -> None:
    """Write confusion.png, reliability.png and per_class.png of a contestant into `folder`."""
    title = f"{contestant}, {evaluation.metrics.images:,} test images"
    folder.mkdir(parents=True, exist_ok=True)
    save_figure(confusion_figure(evaluation.confusion, evaluation.classes, title), folder / "confusion.png")
    save_figure(reliability_figure({contestant: evaluation}, {contestant: colour}), folder / "reliability.png")
    save_figure(per_class_figure(evaluation.per_class, title), folder / "per_class.png")


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


def reliability_figure(evaluations: Mapping[str, Evaluation], colours: Mapping[str, str]) -> Figure:
    """Accuracy against confidence of each contestant, each bin with its interval; below the share of images by bin.

    What is light is of the network's own probabilities, before its temperature.
    """
    # The legend has two lines for each contestant.
    figure = new_figure(height=5 + 0.4 * len(evaluations))
    diagram, histogram = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    diagram.plot([0, 1], [0, 1], linestyle="--", color=NEUTRAL, label="perfect", zorder=3)
    for contestant, evaluation in evaluations.items():
        metrics, bins, colour = evaluation.metrics, evaluation.reliability, colours[contestant]
        if metrics.uncalibrated_expected_calibration_error is not None:
            _draw_bins(diagram, bins, "uncalibrated_", color=colour, alpha=0.3)
        _draw_bins(diagram, bins, "", color=colour, label=f"{contestant}, {_calibration_error(metrics)}")
        histogram.stairs(100 * bins["images"] / metrics.images, [0, *bins["bin_high"]], color=colour, lw=2)
    diagram.set(ylabel="accuracy", ylim=(0, 1))
    histogram.set(xlabel="confidence", ylabel="images, %", xlim=(0, 1), ylim=(0, 100))
    for axis in (diagram.yaxis, histogram.xaxis):
        axis.set_major_formatter("{x:.0%}")
    figure.legend(*diagram.get_legend_handles_labels(), loc="outside upper left")
    return figure


def _draw_bins(diagram: Axes, bins: pd.DataFrame, prefix: str, **style: Any) -> None:
    """Accuracy over confidence in each bin that has images, with its interval where that was recorded."""
    columns = ["images", "confidence", "accuracy", "accuracy_low", "accuracy_high"]
    shown = bins.reindex(columns=[prefix + column for column in columns]).set_axis(columns, axis=1)
    shown = shown[shown["images"] > 0]
    accuracy = shown["accuracy"]
    error = [accuracy - shown["accuracy_low"], shown["accuracy_high"] - accuracy]
    diagram.errorbar(shown["confidence"], accuracy, error, fmt="o", elinewidth=1, **style)


def _calibration_error(metrics: Metrics) -> str:
    name = "expected_calibration_error"
    after, before = (_with_interval(metrics, prefix + name) for prefix in ("", "uncalibrated_"))
    return f"ECE {after} points" + (f"\nlight: {before}" if before else "")


def _with_interval(metrics: Metrics, name: str) -> str:
    """A calibration error in points, with its interval where that was recorded; empty where it was not recorded."""
    value, low, high = (getattr(metrics, name + end) for end in ("", "_low", "_high"))
    if value is None:
        return ""
    return points(value) + (f" ({points(low)} to {points(high)})" if low is not None else "")


def per_class_figure(per_class: pd.DataFrame, title: str) -> Figure:
    """Precision, recall and F1 of each class as dots, the best class at the top."""
    scores = per_class[["precision", "recall", "f1"]].rename(columns={"f1": "F1"})
    figure = class_dots(scores, scores["F1"], per_class["class"].tolist(), SCORE_COLOURS, "v^o")
    figure.axes[0].set(xlabel="score on the test images", title=title)
    return figure
