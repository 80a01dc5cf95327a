"""The charts in which the contestants stand side by side, narrow enough for a phone."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from vit_vs_cnn.evaluation.metrics import accuracy_interval
from vit_vs_cnn.report.class_axis import ends_of_order, matrix_side, name_matrix, name_rows
from vit_vs_cnn.report.comparison import Comparison, Contestant
from vit_vs_cnn.report.evaluation import draw_perfect_calibration
from vit_vs_cnn.report.figures import FigureWriter
from vit_vs_cnn.report.style import DIVERGING, NEUTRAL, new_figure

Colours = Mapping[str, str]

_MOST_COUNTED_CLASSES = 20
_WIDTH = 6.5


def write_comparison_figures(comparison: Comparison, colours: Colours, gallery: FigureWriter) -> None:
    """Add every chart of the comparison to `gallery`; `colours` gives each contestant's colour."""
    gallery.add(
        "learning_by_epoch",
        learning_curves(comparison, colours, "epoch", "epoch"),
        "How they learned, by epoch",
        "Solid: validation; dotted: training, measured on augmented images while the weights still change. "
        "The dot is the epoch that was chosen, by validation.",
    )
    gallery.add(
        "learning_by_time",
        learning_curves(comparison, colours, "elapsed_seconds", "seconds of training and validation"),
        "How they learned, by time",
        "The same curves over the time that they took: where each would stand if the clock were the budget.",
    )
    gallery.add(
        "accuracy_and_cost",
        accuracy_and_cost(comparison, colours),
        "What the accuracy costs",
        "Test accuracy with its interval against the time of an epoch, the number of parameters and the time for one "
        "image. Up is better, left is cheaper.",
    )
    gallery.add(
        "per_class",
        per_class(comparison, colours),
        "Class by class",
        "Recall on test: the share of each class's images that were recognised. Classes are ordered by the mean.",
    )
    gallery.add(
        "reliability",
        reliability(comparison, colours),
        "Can their confidence be believed?",
        "How often each is right, by how sure it said it was; on the dashed line it is right as often as it says. "
        "A long bar means few images, where the dot says little. ECE is the mean distance from the line.",
    )
    if len(comparison.contestants) > 1:
        first, second = comparison.contestants[:2]
        gallery.add(
            "confusion_difference",
            confusion_difference(first, second),
            f"Where {first.name} and {second.name} differ",
            f"Share of each true class (row) that was taken for a class (column): {first.name} minus {second.name}, in "
            f"points. On the diagonal red is good for {first.name}, beside it blue is.",
        )


def learning_curves(comparison: Comparison, colours: Colours, column: str, label: str) -> Figure:
    """Accuracy and loss over a `column` of the histories."""
    figure = new_figure(_WIDTH, 6.4)
    panels = figure.subplots(2, 1, sharex=True)
    for each in comparison.contestants:
        history, colour = each.history, colours[each.name]
        best = history[history["epoch"] == each.summary.best_epoch]
        # A line through one epoch is invisible: it needs its point.
        point = "." if len(history) == 1 else ""
        for axes, quantity in zip(panels, ("accuracy", "loss"), strict=True):
            axes.plot(history[column], history[f"train_{quantity}"], ":", color=colour, marker=point)
            axes.plot(history[column], history[f"val_{quantity}"], color=colour, linewidth=2, label=each.name)
            axes.plot(best[column], best[f"val_{quantity}"], "o", color=colour)
    panels[0].set_ylabel("accuracy")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panels[1].set(ylabel="cross-entropy loss", xlabel=label)
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def accuracy_and_cost(comparison: Comparison, colours: Colours) -> Figure:
    """Test accuracy with interval against seconds per epoch, parameters, and latency at batch 1."""
    figure = new_figure(_WIDTH, 8)
    panels = figure.subplots(3, 1, sharey=True)
    for each in comparison.contestants:
        metrics, cost = each.evaluation.metrics, each.evaluation.cost
        interval = [[metrics.accuracy - metrics.accuracy_low], [metrics.accuracy_high - metrics.accuracy]]
        for axes, value in zip(panels, (cost.seconds_per_epoch, cost.parameters, cost.latency_p50_ms), strict=True):
            axes.errorbar(
                value, metrics.accuracy, interval, fmt="o", color=colours[each.name], capsize=4, label=each.name
            )
    labels = ("seconds per epoch", "parameters", "milliseconds for one image (median)")
    for axes, label in zip(panels, labels, strict=True):
        axes.set(xlabel=label, ylabel="test accuracy")
        axes.set_xlim(0, 1.08 * axes.dataLim.x1)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[1].xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def per_class(comparison: Comparison, colours: Colours) -> Figure:
    """Recall of each class, one dot per contestant, a line between the outer ones."""
    recall = np.stack([each.evaluation.per_class["recall"].to_numpy(float) for each in comparison.contestants])
    shown, rows = ends_of_order(recall.mean(axis=0))
    lowest, highest = recall[:, shown].min(axis=0), recall[:, shown].max(axis=0)
    figure = new_figure(_WIDTH, 1.7 + 0.3 * (rows.max() + 1))
    axes = figure.subplots()
    axes.hlines(rows, lowest, highest, color=NEUTRAL, linewidth=1.5)
    # Rings of falling size keep dots apart that lie on one another.
    for place, (each, values) in enumerate(zip(comparison.contestants, recall, strict=True)):
        size = 40 + 50 * (len(recall) - 1 - place)
        axes.scatter(values[shown], rows, s=size, color=colours[each.name], label=each.name, zorder=3)
    name_rows(axes, comparison.contestants[0].evaluation.classes, shown, rows)
    axes.set_xlabel("recall on the test images")
    axes.set_xlim(min(0.9, float(np.nanmin(lowest)) - 0.03), 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.legend(loc="outside upper left", ncols=3, markerscale=0.8)
    return figure


def reliability(comparison: Comparison, colours: Colours) -> Figure:
    """Accuracy against confidence of all contestants in one diagram, each bin with its interval."""
    figure = new_figure(_WIDTH, 6)
    axes = figure.subplots()
    draw_perfect_calibration(axes)
    for each in comparison.contestants:
        metrics, table = each.evaluation.metrics, each.evaluation.reliability
        table = table[table["images"] > 0]
        counts = zip(table["accuracy"] * table["images"], table["images"], strict=True)
        low, high = np.transpose([accuracy_interval(round(right), n, metrics.confidence) for right, n in counts])
        axes.errorbar(
            table["confidence"],
            table["accuracy"],
            [table["accuracy"] - low, high - table["accuracy"]],
            fmt="o",
            color=colours[each.name],
            elinewidth=1,
            label=f"{each.name}, ECE {100 * metrics.expected_calibration_error:.1f} points",
        )
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.02, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def confusion_difference(first: Contestant, second: Contestant) -> Figure:
    """Row-normalised confusion of `first` minus that of `second`, in points."""
    shares = [
        100 * each.evaluation.confusion / np.maximum(each.evaluation.confusion.sum(axis=1, keepdims=True), 1)
        for each in (first, second)
    ]
    difference = shares[0] - shares[1]
    classes = first.evaluation.classes
    limit = max(1.0, float(np.abs(difference).max()))
    side = matrix_side(len(classes))
    figure = new_figure(side + 2.2, side + 1.2)
    axes = figure.subplots()
    picture = axes.imshow(difference, cmap=DIVERGING, vmin=-limit, vmax=limit)
    if len(classes) <= _MOST_COUNTED_CLASSES:
        for (row, column), value in np.ndenumerate(difference):
            if abs(value) >= 0.5:
                colour = "white" if abs(value) > 0.6 * limit else "black"
                axes.text(column, row, f"{value:+.0f}", ha="center", va="center", color=colour, fontsize=9)
    name_matrix(axes, classes)
    figure.colorbar(picture, label=f"{first.name} minus {second.name}, points", shrink=0.8)
    return figure
