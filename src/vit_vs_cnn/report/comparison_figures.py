"""The charts in which the contestants stand side by side."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from vit_vs_cnn.report.class_axis import ends_of_order, matrix_side, name_matrix, name_rows
from vit_vs_cnn.report.comparison import Comparison, Contestant
from vit_vs_cnn.report.evaluation import draw_perfect_calibration
from vit_vs_cnn.report.gallery import Gallery
from vit_vs_cnn.report.style import DIVERGING, NEUTRAL, new_figure

Colours = Mapping[str, str]

_MOST_COUNTED_CLASSES = 20
_TELLABLE_RATIO = 1.2
_FEWEST_IN_A_BIN = 10


def write_comparison_figures(comparison: Comparison, colours: Colours, gallery: Gallery) -> None:
    """Add every chart of the comparison to `gallery`; `colours` gives each contestant's colour."""
    gallery.add(
        "learning_curves",
        learning_curves(comparison, colours),
        "How they learned",
        "Accuracy and loss after each epoch, over epochs and over the seconds that training and validation took. "
        "Solid: validation; dotted: training, measured on augmented images while the weights still change. "
        "The dot is the epoch that was chosen, by validation.",
    )
    gallery.add(
        "accuracy_and_cost",
        accuracy_and_cost(comparison, colours),
        "What the accuracy costs",
        "Test accuracy with its interval against the time of an epoch, the number of parameters and the time for one "
        "image. Up is better, left is cheaper; the cost axes are logarithmic.",
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
        f"Larger dots stand for more images; bins of fewer than {_FEWEST_IN_A_BIN} are left out.",
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


def learning_curves(comparison: Comparison, colours: Colours) -> Figure:
    """Accuracy and loss over epochs (left) and over seconds (right)."""
    figure = new_figure(10, 7)
    grid = figure.subplots(2, 2, sharex="col", sharey="row")
    for each in comparison.contestants:
        colour, best = colours[each.name], each.history["epoch"] == each.summary.best_epoch
        for column, x in enumerate(("epoch", "elapsed_seconds")):
            for row, quantity in enumerate(("accuracy", "loss")):
                axes = grid[row, column]
                marker = "." if len(each.history) < 3 else ""
                axes.plot(each.history[x], each.history[f"train_{quantity}"], ":", color=colour, marker=marker)
                axes.plot(each.history[x], each.history[f"val_{quantity}"], color=colour, label=each.name, linewidth=2)
                axes.plot(each.history[x][best], each.history[f"val_{quantity}"][best], "o", color=colour)
    grid[0, 0].set(ylabel="accuracy", title="over epochs")
    grid[0, 1].set(title="over time")
    grid[1, 0].set(ylabel="cross-entropy loss", xlabel="epoch")
    grid[1, 1].set(xlabel="seconds of training and validation")
    grid[0, 0].yaxis.set_major_formatter(PercentFormatter(1.0))
    grid[1, 0].xaxis.get_major_locator().set_params(integer=True)
    grid[0, 0].legend(loc="lower right")
    return figure


def accuracy_and_cost(comparison: Comparison, colours: Colours) -> Figure:
    """Test accuracy with interval against seconds per epoch, parameters, and latency at batch 1."""
    figure = new_figure(10, 4)
    costs: dict[str, Callable[[Contestant], float]] = {
        "seconds per epoch": lambda each: each.summary.seconds_per_epoch,
        "parameters": lambda each: each.evaluation.cost.parameters,
        "latency of one image, ms (p50)": lambda each: each.evaluation.cost.latency_p50_ms,
    }
    panels = figure.subplots(1, len(costs), sharey=True)
    for axes, (label, cost) in zip(panels, costs.items(), strict=True):
        for each in comparison.contestants:
            metrics = each.evaluation.metrics
            error = [[metrics.accuracy - metrics.accuracy_low], [metrics.accuracy_high - metrics.accuracy]]
            axes.errorbar(
                cost(each), metrics.accuracy, error, fmt="o", color=colours[each.name], capsize=4, label=each.name
            )
        _logarithmic(axes, [cost(each) for each in comparison.contestants])
        axes.set_xlabel(label)
    panels[0].set_ylabel("test accuracy")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(comparison.contestants))
    return figure


def per_class(comparison: Comparison, colours: Colours) -> Figure:
    """Recall of each class, one dot per contestant, a line between the outer ones."""
    recall = np.stack([each.evaluation.per_class["recall"].to_numpy(float) for each in comparison.contestants])
    shown, rows = ends_of_order(recall.mean(axis=0))
    figure = new_figure(7.5, 1.7 + 0.3 * (rows.max() + 1))
    axes = figure.subplots()
    axes.hlines(rows, recall[:, shown].min(axis=0), recall[:, shown].max(axis=0), color=NEUTRAL, linewidth=1.5)
    for each, values in zip(comparison.contestants, recall, strict=True):
        axes.scatter(values[shown], rows, color=colours[each.name], s=46, label=each.name, zorder=3)
    name_rows(axes, comparison.contestants[0].evaluation.classes, shown, rows)
    axes.set_xlabel("recall on the test images")
    axes.margins(x=0.03)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside upper left", ncols=len(comparison.contestants))
    return figure


def reliability(comparison: Comparison, colours: Colours) -> Figure:
    """Accuracy against confidence of all contestants in one diagram."""
    figure = new_figure(6.5, 5.5)
    axes = figure.subplots()
    draw_perfect_calibration(axes)
    for each in comparison.contestants:
        table = each.evaluation.reliability
        # The accuracy of three images is 0, 33, 67 or 100 %: it would draw spikes that mean nothing.
        table = table[table["images"] >= _FEWEST_IN_A_BIN]
        error = each.evaluation.metrics.expected_calibration_error
        axes.plot(
            table["confidence"],
            table["accuracy"],
            color=colours[each.name],
            label=f"{each.name} (ECE {100 * error:.1f} points)",
        )
        sizes = 12 + 200 * table["images"] / table["images"].sum()
        axes.scatter(table["confidence"], table["accuracy"], sizes, color=colours[each.name], alpha=0.8)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.04))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(loc="upper left")
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


def _logarithmic(axes: Axes, values: list[float]) -> None:
    """A logarithmic axis with plain numbers at the values themselves: a few dots need no decades."""
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 1.6, max(values) * 1.6)
    told_apart: list[float] = []
    for value in sorted(values):
        if not told_apart or value > _TELLABLE_RATIO * told_apart[-1]:
            told_apart.append(value)
    axes.set_xticks(told_apart)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def _short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"
