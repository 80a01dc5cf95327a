"""The figures in which the contestants stand side by side, narrow enough for a phone."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from vit_vs_cnn.evaluation.results import Evaluation
from vit_vs_cnn.report.class_axes import class_dots, class_matrix
from vit_vs_cnn.report.comparison import Comparison, Contestant
from vit_vs_cnn.report.evaluation import confusion_shares, reliability_figure
from vit_vs_cnn.report.figure_writer import FigureWriter
from vit_vs_cnn.report.style import DIVERGING, new_figure

_WIDTH = 6.5


def write_comparison_figures(comparison: Comparison, folder: Path) -> None:
    """Write every figure of the comparison and figures.json into `folder`."""
    writer = FigureWriter(folder, "comparison")
    evaluations = {contestant.name: contestant.evaluation for contestant in comparison.contestants}
    colours = {contestant.name: contestant.colour for contestant in comparison.contestants}
    writer.add("learning_by_epoch", learning_curves(comparison, "epoch", "epoch"))
    by_time = learning_curves(comparison, "elapsed_seconds", "seconds of training and validation")
    writer.add("learning_by_time", by_time)
    writer.add("accuracy_and_cost", accuracy_and_cost(comparison))
    writer.add("per_class", recall_by_class(evaluations, colours))
    writer.add("reliability", reliability_figure(evaluations, colours))
    if len(comparison.contestants) > 1:
        first, second = comparison.contestants[:2]
        difference = confusion_difference(first, second)
        writer.add("confusion_difference", difference, first=first.name, second=second.name)
    writer.close()


def learning_curves(comparison: Comparison, column: str, label: str) -> Figure:
    """Accuracy and loss over a `column` of the histories."""
    figure = new_figure(_WIDTH, 6.4)
    panels = figure.subplots(2, 1, sharex=True)
    for contestant in comparison.contestants:
        history, colour = contestant.history, contestant.colour
        best = history[history["epoch"] == contestant.summary.best_epoch]
        # A line through one epoch is invisible: it needs its point.
        point = "." if len(history) == 1 else ""
        for axes, metric in zip(panels, ("accuracy", "loss"), strict=True):
            axes.plot(history[column], history[f"train_{metric}"], ":", color=colour, marker=point)
            axes.plot(history[column], history[f"val_{metric}"], color=colour, linewidth=2, label=contestant.name)
            axes.plot(best[column], best[f"val_{metric}"], "o", color=colour)
    panels[0].set_ylabel("accuracy")
    panels[0].yaxis.set_major_formatter("{x:.0%}")
    panels[1].set(ylabel="cross-entropy loss", xlabel=label)
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def accuracy_and_cost(comparison: Comparison) -> Figure:
    """Test accuracy with interval against seconds per epoch, parameters, and latency at batch 1."""
    figure = new_figure(_WIDTH, 8)
    panels = figure.subplots(3, 1, sharey=True)
    costs = {
        "seconds_per_epoch": "seconds per epoch",
        "parameters": "parameters",
        "latency_p50_ms": "milliseconds for one image (median)",
    }
    for axes, (cost, label) in zip(panels, costs.items(), strict=True):
        for contestant in comparison.contestants:
            metrics, name, colour = contestant.evaluation.metrics, contestant.name, contestant.colour
            interval = [[metrics.accuracy - metrics.accuracy_low], [metrics.accuracy_high - metrics.accuracy]]
            value = getattr(contestant.cost, cost)
            axes.errorbar(value, metrics.accuracy, interval, fmt="o", color=colour, capsize=4, label=name)
        axes.set(xlabel=label, ylabel="test accuracy")
        axes.set_xlim(0, 1.08 * axes.dataLim.x1)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[1].xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def recall_by_class(evaluations: Mapping[str, Evaluation], colours: Mapping[str, str]) -> Figure:
    """Recall of each class, one dot per contestant."""
    recall = pd.DataFrame({name: evaluation.per_class["recall"] for name, evaluation in evaluations.items()})
    classes = next(iter(evaluations.values())).classes
    figure = class_dots(recall, recall.mean(axis=1), classes, colours, "o" * len(colours))
    figure.axes[0].set_xlabel("recall on the test images")
    return figure


def confusion_difference(first: Contestant, second: Contestant) -> Figure:
    """Row-normalised confusion of `first` minus that of `second`, in points."""
    difference = confusion_shares(first.evaluation.confusion) - confusion_shares(second.evaluation.confusion)
    limit = max(1.0, float(np.abs(difference).max()))
    annotations = np.where(np.abs(difference) >= 0.5, np.char.mod("%+.0f", difference), "")
    label = f"{first.name} minus {second.name}, points"
    classes = first.evaluation.classes
    return class_matrix(difference, classes, annotations, label, cmap=DIVERGING, vmin=-limit, vmax=limit)
