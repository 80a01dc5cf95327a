"""The figures in which the contestants stand side by side, narrow enough for a phone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from vit_vs_cnn.core.console import points
from vit_vs_cnn.evaluation.contestants import Contestant
from vit_vs_cnn.evaluation.faithfulness import Faithfulness
from vit_vs_cnn.report.class_axes import class_dots, class_matrix
from vit_vs_cnn.report.comparison import Comparison
from vit_vs_cnn.report.evaluation import confusion_shares, reliability_figure
from vit_vs_cnn.report.figure_writer import FigureWriter
from vit_vs_cnn.report.style import DIVERGING, new_figure

# A curve is a result where the learning rate has come down to this part of its peak; in the warm-up it goes up.
_ANNEALED = 0.1
# How far the axis of latencies goes.
_MOST_TIMES_THE_SLOWEST = 3.0
_MAPS = {"gradcam": "Grad-CAM", "rollout": "Attention"}

Maps = Mapping[str, Mapping[str, Faithfulness]]


def write_comparison_figures(comparison: Comparison, maps: Maps, folder: Path) -> None:
    """Write every figure of the comparison and figures.json into `folder`.

    `maps` are how faithful each kind of map of each contestant is.
    """
    writer = FigureWriter(folder, "comparison")
    contestants = comparison.contestants
    chosen = {contestant.name: contestant.chosen.evaluation for contestant in contestants}
    writer.add("accuracy_and_latency", accuracy_and_latency(comparison), _latencies(contestants))
    writer.add("accuracy_and_cost", accuracy_and_cost(comparison), _costs(contestants))
    writer.add("learning_by_epoch", learning_by_epoch(comparison), _learned(contestants))
    writer.add("learning_by_time", learning_by_time(comparison), _learned(contestants))
    writer.add("per_class", recall_by_class(comparison), _hardest_classes(contestants))
    writer.add("reliability", reliability_figure(chosen, comparison.colours), _calibration(contestants))
    if len(contestants) > 1:
        first, second = contestants[:2]
        difference = confusion_difference(first, second)
        alt = _largest_difference(first, second)
        writer.add("confusion_difference", difference, alt, first=first.name, second=second.name)
    if any(maps.values()):
        writer.add("faithfulness", deletion_and_insertion(comparison, maps), _areas(maps))
    writer.close()


def accuracy_and_latency(comparison: Comparison) -> Figure:
    """Test accuracy with its interval over the time that the exported model takes for one image."""
    figure = new_figure()
    axes = figure.subplots()
    for contestant in comparison.contestants:
        cost = contestant.cost
        spread = [[cost.latency_p50_ms - cost.latency_p50_ms_low], [cost.latency_p50_ms_high - cost.latency_p50_ms]]
        _mark(axes, comparison, contestant, cost.latency_p50_ms, spread)
    axes.set_xlabel("milliseconds for one image, exported (median)")
    _frame(axes)
    # One round beside other work may be a hundred times as slow, and would press all medians against the axis.
    slowest = max(contestant.cost.latency_p50_ms for contestant in comparison.contestants)
    axes.set_xlim(0, min(axes.get_xlim()[1], _MOST_TIMES_THE_SLOWEST * slowest))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def accuracy_and_cost(comparison: Comparison) -> Figure:
    """Test accuracy with its interval over seconds per epoch and over parameters."""
    figure = new_figure(height=4.8)
    panels = figure.subplots(2, 1, sharey=True)
    for contestant in comparison.contestants:
        _mark(panels[0], comparison, contestant, contestant.seconds_per_epoch)
        _mark(panels[1], comparison, contestant, contestant.cost.parameters)
    panels[0].set_xlabel("seconds per epoch")
    panels[1].set_xlabel("parameters")
    panels[1].xaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in panels:
        _frame(axes)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def _mark(
    axes: Axes,
    comparison: Comparison,
    contestant: Contestant,
    cost: float,
    spread: list[list[float]] | None = None,
) -> None:
    """A contestant's mean accuracy with its interval at its cost, and a dash for each of several replicates."""
    accuracy, colour = contestant.accuracy, comparison.colours[contestant.name]
    interval = [[accuracy - contestant.mean.low], [contestant.mean.high - accuracy]]
    axes.errorbar(cost, accuracy, interval, spread, fmt="o", color=colour, capsize=4, label=contestant.name)
    if len(contestant.replicates) > 1:
        accuracies = contestant.correct.mean(axis=1)
        axes.plot([cost] * len(accuracies), accuracies, "_", color=colour, markersize=9, alpha=0.6)


def _frame(axes: Axes) -> None:
    """Cost from 0 on, accuracy in per cent and never above 100."""
    axes.set_ylabel("test accuracy")
    axes.set_xlim(0, 1.08 * axes.dataLim.x1)
    low, high = axes.get_ylim()
    axes.set_ylim(low, min(high, 1.0))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def learning_by_epoch(comparison: Comparison) -> Figure:
    """Accuracy and loss over epochs; thick where the learning rate has come down."""
    figure = new_figure(height=4.8)
    panels = figure.subplots(2, 1, sharex=True)
    for contestant in comparison.contestants:
        for replicate in contestant.replicates:
            history, chosen = replicate.history, replicate is contestant.chosen
            for axes, metric in zip(panels, ("accuracy", "loss"), strict=True):
                _draw_curve(axes, comparison, contestant, history["epoch"], history, f"val_{metric}", chosen)
                if chosen:
                    colour, best = comparison.colours[contestant.name], replicate.summary.best_epoch
                    axes.plot(history["epoch"], history[f"train_{metric}"], ":", color=colour, lw=1)
                    at_best = history[history["epoch"] == best]
                    axes.plot(at_best["epoch"], at_best[f"val_{metric}"], "o", color=colour)
    panels[0].set_ylabel("accuracy")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[1].set(ylabel="cross-entropy loss", xlabel="epoch")
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def learning_by_time(comparison: Comparison) -> Figure:
    """Accuracy over the time that an epoch usually takes: on a busy machine single epochs take much longer."""
    figure = new_figure()
    axes = figure.subplots()
    for contestant in comparison.contestants:
        usual = pd.concat([replicate.history["epoch_seconds"] for replicate in contestant.replicates]).median()
        for replicate in contestant.replicates:
            history, chosen = replicate.history, replicate is contestant.chosen
            elapsed = history["epoch"] * usual
            _draw_curve(axes, comparison, contestant, elapsed, history, "val_accuracy", chosen)
    axes.set(xlabel="seconds of training and validation", ylabel="accuracy", xlim=(0, None))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def _draw_curve(
    axes: Axes,
    comparison: Comparison,
    contestant: Contestant,
    x: "pd.Series[float]",
    history: pd.DataFrame,
    column: str,
    chosen: bool,
) -> None:
    """A thin curve of a replicate, and of the chosen one its end, where the rate has come down, as a thick line."""
    colour = comparison.colours[contestant.name]
    axes.plot(x, history[column], color=colour, linewidth=1, alpha=0.6 if chosen else 0.35)
    if chosen:
        rate = history["learning_rate"]
        annealed = (rate <= _ANNEALED * rate.max()) & (history.index >= rate.idxmax())
        # The line begins at the point before, and the last epoch is a result even where the rate stays high.
        shown = annealed | annealed.shift(-1, fill_value=True)
        marker = "." if shown.sum() == 1 else ""
        axes.plot(x[shown], history[column][shown], color=colour, lw=2.5, marker=marker, label=contestant.name)


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


def deletion_and_insertion(comparison: Comparison, maps: Maps) -> Figure:
    """The mean probability of the class while images are deleted, and inserted, by map; a row for each kind of map."""
    kinds = sorted({kind for own in maps.values() for kind in own})
    figure = new_figure(height=0.9 + 1.9 * len(kinds))
    panels = figure.subplots(len(kinds), 2, sharex=True, sharey=True, squeeze=False)
    for row, kind in zip(panels, kinds, strict=True):
        for name, own in maps.items():
            if kind in own:
                _draw_orders(row, own[kind], comparison.colours[name], name)
        row[0].set_title(f"{_MAPS[kind]}: deleted")
        row[1].set_title("inserted")
        row[0].set_ylabel("probability")
    panels[0, 0].set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1))
    for axis in (panels[0, 0].xaxis, panels[0, 0].yaxis):
        axis.set_major_formatter("{x:.0%}")
    figure.supxlabel("share of the image that is deleted, or inserted", fontsize="medium")
    labels = {
        label: line for axes in panels.flat for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(labels.values(), labels.keys(), loc="outside upper left", ncols=3)
    return figure


def _draw_orders(row: Sequence[Axes], measured: Faithfulness, colour: str, name: str) -> None:
    """The order of the map, and dashed the mean of random orders."""
    deletion, insertion, random = measured.curves.mean(axis=1)
    for axes, curve, shares in ((row[0], deletion, measured.shares), (row[1], insertion, 1 - measured.shares)):
        axes.plot(shares, curve, color=colour, label=name)
        axes.plot(shares, random, "--", color=colour, linewidth=1)


def _latencies(contestants: Sequence[Contestant]) -> str:
    return "; ".join(
        f"{one.name}: {points(one.accuracy)} % at {one.cost.latency_p50_ms:.1f} ms an image" for one in contestants
    )


def _costs(contestants: Sequence[Contestant]) -> str:
    return "; ".join(
        f"{one.name}: {points(one.accuracy)} %, {one.seconds_per_epoch:.1f} s an epoch, {one.cost.parameters:,} "
        "parameters"
        for one in contestants
    )


def _learned(contestants: Sequence[Contestant]) -> str:
    return "; ".join(
        f"{one.name} ends at {points(one.chosen.history['val_accuracy'].iloc[-1])} % of validation after "
        f"{len(one.chosen.history)} epochs"
        for one in contestants
    )


def _hardest_classes(contestants: Sequence[Contestant]) -> str:
    hardest = {one.name: one.per_class.nsmallest(1, "recall").iloc[0] for one in contestants}
    return "; ".join(f"{name}: lowest {points(row['recall'])} %, {row['class']}" for name, row in hardest.items())


def _largest_difference(first: Contestant, second: Contestant) -> str:
    difference = confusion_shares(first.confusion) - confusion_shares(second.confusion)
    true, taken = np.unravel_index(np.abs(difference).argmax(), difference.shape)
    classes, largest = first.chosen.evaluation.classes, difference[true, taken]
    return (
        f"The largest: {first.name} takes {classes[true]} for {classes[taken]} {abs(largest):.1f} points "
        f"{'more' if largest > 0 else 'less'} often than {second.name}"
    )


def _calibration(contestants: Sequence[Contestant]) -> str:
    errors = {one.name: one.chosen.evaluation.metrics.expected_calibration_error for one in contestants}
    return "; ".join(f"{name}: {points(error)} points from the line in the mean" for name, error in errors.items())


def _areas(maps: Maps) -> str:
    return "; ".join(
        f"{name}, {_MAPS[kind]}: deletion AUC {measured.deletion.mean():.2f}, insertion AUC "
        f"{measured.insertion.mean():.2f}, in random orders {measured.random.mean():.2f}"
        for name, own in maps.items()
        for kind, measured in own.items()
    )
