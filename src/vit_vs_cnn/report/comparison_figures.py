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
from vit_vs_cnn.report.figures import FigureWriter
from vit_vs_cnn.report.style import DIVERGING, new_figure

_WIDTH = 6.5


def write_comparison_figures(comparison: Comparison, folder: Path) -> None:
    """Write every figure of the comparison and figures.json into `folder`."""
    writer = FigureWriter(folder)
    evaluations = {contestant.name: contestant.evaluation for contestant in comparison.contestants}
    colours = {contestant.name: contestant.colour for contestant in comparison.contestants}
    writer.add(
        "learning_by_epoch",
        learning_curves(comparison, "epoch", "epoch"),
        "How they learned, by epoch",
        "Solid: validation; dotted: training, measured on augmented images while the weights still change. "
        "The dot is the epoch that was chosen, by validation.",
    )
    writer.add(
        "learning_by_time",
        learning_curves(comparison, "elapsed_seconds", "seconds of training and validation"),
        "How they learned, by time",
        "The same curves over the time that they took, as if time were the budget.",
    )
    writer.add(
        "accuracy_and_cost",
        accuracy_and_cost(comparison),
        "What the accuracy costs",
        "Test accuracy with its interval against the time of an epoch, the number of parameters and the time for one "
        "image. Up is better, left is cheaper.",
    )
    writer.add(
        "per_class",
        recall_by_class(evaluations, colours),
        "Class by class",
        "Recall on test: the share of each class's images that were recognised. Classes are ordered by the mean.",
    )
    writer.add(
        "reliability",
        reliability_figure(evaluations, colours),
        "Can their confidence be believed?",
        "How often each is right, by its confidence; on the dashed line it is right as often as it is confident. A "
        "long bar means few images and an uncertain dot. ECE is the mean distance from the line. Below, the share of "
        "the images at each confidence.",
    )
    if len(comparison.contestants) > 1:
        first, second = comparison.contestants[:2]
        writer.add(
            "confusion_difference",
            confusion_difference(first, second),
            f"Where {first.name} and {second.name} differ",
            f"Share of each true class (row) that was taken for a class (column): {first.name} minus {second.name}, in "
            f"points. On the diagonal red is good for {first.name}, beside it blue is.",
        )
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
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
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
            metrics = contestant.evaluation.metrics
            axes.errorbar(
                getattr(contestant.cost, cost),
                metrics.accuracy,
                [[metrics.accuracy - metrics.accuracy_low], [metrics.accuracy_high - metrics.accuracy]],
                fmt="o",
                color=contestant.colour,
                capsize=4,
                label=contestant.name,
            )
        axes.set(xlabel=label, ylabel="test accuracy")
        axes.set_xlim(0, 1.08 * axes.dataLim.x1)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[1].xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def recall_by_class(evaluations: Mapping[str, Evaluation], colours: Mapping[str, str]) -> Figure:
    """Recall of each class, one dot per contestant."""
    recall = pd.DataFrame({contestant: each.per_class["recall"] for contestant, each in evaluations.items()})
    classes = next(iter(evaluations.values())).classes
    figure = class_dots(recall, recall.mean(axis=1), classes, colours, "o" * len(colours))
    figure.axes[0].set_xlabel("recall on the test images")
    return figure


def confusion_difference(first: Contestant, second: Contestant) -> Figure:
    """Row-normalised confusion of `first` minus that of `second`, in points."""
    difference = confusion_shares(first.evaluation.confusion) - confusion_shares(second.evaluation.confusion)
    limit = max(1.0, float(np.abs(difference).max()))
    return class_matrix(
        difference,
        first.evaluation.classes,
        np.where(np.abs(difference) >= 0.5, np.char.mod("%+.0f", difference), ""),
        f"{first.name} minus {second.name}, points",
        cmap=DIVERGING,
        vmin=-limit,
        vmax=limit,
    )
