"""The figures in which the contestants stand side by side, narrow enough for a phone."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from vit_vs_cnn.evaluation.contestants import Contestant
from vit_vs_cnn.report.class_axes import class_dots, class_matrix
from vit_vs_cnn.report.comparison import Comparison
from vit_vs_cnn.report.evaluation import confusion_shares, reliability_figure
from vit_vs_cnn.report.figure_writer import FigureWriter
from vit_vs_cnn.report.style import DIVERGING, new_figure

_WIDTH = 6.5


def write_comparison_figures(comparison: Comparison, folder: Path) -> None:
    """Write every figure of the comparison and figures.json into `folder`."""
    writer = FigureWriter(folder, "comparison")
    chosen = {contestant.name: contestant.chosen.evaluation for contestant in comparison.contestants}
    colours = comparison.colours
    writer.add("learning_by_epoch", learning_curves(comparison, "epoch", "epoch"))
    by_time = learning_curves(comparison, "elapsed_seconds", "seconds of training and validation")
    writer.add("learning_by_time", by_time)
    writer.add("accuracy_and_cost", accuracy_and_cost(comparison))
    writer.add("per_class", recall_by_class(comparison))
    writer.add("reliability", reliability_figure(chosen, colours))
    if len(comparison.contestants) > 1:
        first, second = comparison.contestants[:2]
        difference = confusion_difference(first, second)
        writer.add("confusion_difference", difference, first=first.name, second=second.name)
    writer.close()


def learning_curves(comparison: Comparison, column: str, label: str) -> Figure:
    """Accuracy and loss over a `column` of the histories; the chosen replicate of each contestant is the bold line."""
    figure = new_figure(_WIDTH, 6.4)
    panels = figure.subplots(2, 1, sharex=True)
    for contestant in comparison.contestants:
        colour = comparison.colours[contestant.name]
        for replicate in contestant.replicates:
            history, chosen = replicate.history, replicate is contestant.chosen
            best = history[history["epoch"] == replicate.summary.best_epoch]
            # A line through one epoch is invisible: it needs its point.
            point = "." if len(history) == 1 else ""
            look = {"linewidth": 2, "label": contestant.name} if chosen else {"linewidth": 1, "alpha": 0.45}
            for axes, metric in zip(panels, ("accuracy", "loss"), strict=True):
                axes.plot(history[column], history[f"val_{metric}"], color=colour, **look)
                if chosen:
                    axes.plot(history[column], history[f"train_{metric}"], ":", color=colour, marker=point)
                    axes.plot(best[column], best[f"val_{metric}"], "o", color=colour)
    panels[0].set_ylabel("accuracy")
    panels[0].yaxis.set_major_formatter("{x:.0%}")
    panels[1].set(ylabel="cross-entropy loss", xlabel=label)
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def accuracy_and_cost(comparison: Comparison) -> Figure:
    """Test accuracy with interval, and of each replicate, by seconds per epoch, parameters, and latency at batch 1."""
    figure = new_figure(_WIDTH, 8)
    panels = figure.subplots(3, 1, sharey=True)
    costs = {
        "seconds_per_epoch": "seconds per epoch",
        "parameters": "parameters",
        "latency_p50_ms": "milliseconds for one image (median)",
    }
    for axes, (cost, label) in zip(panels, costs.items(), strict=True):
        for contestant in comparison.contestants:
            name, colour, accuracy = contestant.name, comparison.colours[contestant.name], contestant.accuracy
            value = contestant.seconds_per_epoch if cost == "seconds_per_epoch" else getattr(contestant.cost, cost)
            interval = [[accuracy - contestant.mean.low], [contestant.mean.high - accuracy]]
            axes.errorbar(value, accuracy, interval, fmt="o", color=colour, capsize=4, label=name)
            if len(contestant.replicates) > 1:
                accuracies = contestant.correct.mean(axis=1)
                axes.plot([value] * len(accuracies), accuracies, "_", color=colour, markersize=9, alpha=0.6)
        axes.set(xlabel=label, ylabel="test accuracy")
        axes.set_xlim(0, 1.08 * axes.dataLim.x1)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[1].xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def recall_by_class(comparison: Comparison) -> Figure:
    """Recall of each class, the mean of the replicates, one dot per contestant."""
    contestants = comparison.contestants
    recall = pd.DataFrame({contestant.name: contestant.per_class["recall"] for contestant in contestants})
    classes = contestants[0].chosen.evaluation.classes
    figure = class_dots(recall, recall.mean(axis=1), classes, comparison.colours, "o" * len(contestants))
    figure.axes[0].set_xlabel("recall on the test images")
    return figure


def confusion_difference(first: Contestant, second: Contestant) -> Figure:
    """Row-normalised confusion of `first` minus that of `second`, in points."""
    difference = confusion_shares(first.confusion) - confusion_shares(second.confusion)
    limit = max(1.0, float(np.abs(difference).max()))
    annotations = np.where(np.abs(difference) >= 0.5, np.char.mod("%+.0f", difference), "")
    label = f"{first.name} minus {second.name}, points"
    classes = first.chosen.evaluation.classes
    return class_matrix(difference, classes, annotations, label, cmap=DIVERGING, vmin=-limit, vmax=limit)
