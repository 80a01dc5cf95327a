"""The charts of the exploratory analysis: numbers in, figures out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from vit_vs_cnn.data.dataset import SplitName
from vit_vs_cnn.data.statistics import Quartiles
from vit_vs_cnn.report.grid import shortened
from vit_vs_cnn.report.style import CONTESTANT_COLOURS, DIVERGING, NEUTRAL, SPLIT_COLOURS, new_figure

CHANNELS = ("red", "green", "blue")
MOST_ROWS = 40

# The nearest to red, green and blue that people with any colour vision can tell apart (Okabe & Ito).
_CHANNEL_COLOURS = ("#D55E00", "#009E73", "#0072B2")
_BLUE, _ORANGE = CONTESTANT_COLOURS[:2]
_NAME_LENGTH = 24


def class_distribution(classes: Sequence[str], counts: Mapping[SplitName, Sequence[int]]) -> Figure:
    """Images per class, one panel for each split."""
    few = len(classes) <= MOST_ROWS
    shown, rows = _rows(np.arange(len(classes)) if few else -np.asarray(counts["train"]))
    figure = new_figure(8, 1.3 + 0.28 * len(rows))
    panels = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for axes, (split, per_class) in zip(panels, counts.items(), strict=True):
        values = np.asarray(per_class)[shown]
        bars = axes.barh(rows, values, color=SPLIT_COLOURS[split], height=0.75)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=9, color=NEUTRAL)
        axes.set(title=f"{split}: {sum(per_class):,}", xlabel="images", xlim=(0, 1.3 * max(values.max(), 1)))
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        _name_rows(axes, classes, shown, rows)
    panels[0].invert_yaxis()
    return figure


def colour_histogram(histogram: NDArray[np.int64]) -> Figure:
    """Share of the pixels at each of the 256 levels, by channel, from counts (3, 256)."""
    share = 100 * histogram / histogram[0].sum()
    figure = new_figure(8, 4)
    axes = figure.subplots()
    levels = np.arange(256)
    if (histogram == histogram[0]).all():
        axes.fill_between(levels, share[0], step="mid", color=NEUTRAL, alpha=0.6, label="red = green = blue (grey)")
    else:
        for values, name, colour in zip(share, CHANNELS, _CHANNEL_COLOURS, strict=True):
            axes.fill_between(levels, values, step="mid", color=colour, alpha=0.12, linewidth=0)
            axes.step(levels, values, where="mid", color=colour, linewidth=1.6, label=name)
    # Black and white often tower over all other levels: the few highest are cut off and told in words.
    highest = share.max(axis=0)
    top = 1.35 * np.sort(highest)[-4] or 1.1 * highest.max()
    for line, level in enumerate(np.flatnonzero(highest > top)):
        left = level < 128
        axes.annotate(
            f"level {level}: {_tallest(share[:, level])}", (level, top * (0.97 - 0.08 * line)), (8 if left else -8, 0),
            textcoords="offset points", ha="left" if left else "right", va="top",
        )  # fmt: skip
    axes.set(xlabel="level (0 dark – 255 bright)", xlim=(-2, 257), xticks=[0, 64, 128, 192, 255])
    axes.set(ylabel="share of the pixels, %", ylim=(0, top))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def _tallest(shares: NDArray[np.float64]) -> str:
    channel = "" if (shares == shares[0]).all() else f"{CHANNELS[shares.argmax()]} "
    return f"{channel}{shares.max():.1f} %"


def channel_correlation(correlation: NDArray[np.float64]) -> Figure:
    """Heatmap of the correlation of the channels (3, 3)."""
    figure = new_figure(5, 4)
    axes = figure.subplots()
    picture = axes.imshow(correlation, cmap=DIVERGING, vmin=-1, vmax=1)
    for (row, column), value in np.ndenumerate(correlation):
        text = "–" if np.isnan(value) else f"{value:.2f}"
        colour = "white" if abs(value) > 0.6 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=14)
    axes.set_xticks(range(3), CHANNELS)
    axes.set_yticks(range(3), CHANNELS)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(picture, label="Pearson's correlation", ticks=[-1, -0.5, 0, 0.5, 1])
    return figure


def measure_by_class(
    values: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    summary: Quartiles,
    unit: str,
) -> Figure:
    """A measure's distribution over all images, and below it a box for each class with the outliers as dots."""
    shown, rows = _rows(summary.median)
    boxes_height = 0.4 + 0.3 * (rows[-1] + 1)
    figure = new_figure(8, 2.7 + boxes_height)
    overall, boxes = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, boxes_height])
    median = float(np.median(values))
    overall.hist(values, bins=60, color=_BLUE)
    overall.axvline(median, color="black", linewidth=1.5, linestyle="--")
    overall.set(title=f"All training images: median {median:.1f}", ylabel="images")
    overall.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    overall.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))

    row_of = np.full(len(classes), -1)
    row_of[shown] = rows
    outlying = (summary.excess(values, labels) != 0) & (row_of[labels] >= 0)
    q1, q3 = summary.q1[shown], summary.q3[shown]
    boxes.hlines(rows, summary.low_whisker[shown], summary.high_whisker[shown], color=NEUTRAL, linewidth=1.5)
    boxes.barh(rows, q3 - q1, left=q1, height=0.6, color="#A7CCE5", edgecolor=_BLUE, zorder=2.5)
    boxes.scatter(summary.median[shown], rows, marker="|", s=130, color="black", linewidths=2, zorder=3)
    boxes.scatter(values[outlying], row_of[labels[outlying]], s=12, color=_ORANGE, alpha=0.5, linewidths=0)
    boxes.set(title="By class, outliers as dots", xlabel=unit)
    _name_rows(boxes, classes, shown, rows)
    return figure


def _rows(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes to show, by rising value, and the row of each; of more than `MOST_ROWS` only the two ends."""
    order = np.argsort(values, kind="stable")
    if len(order) <= MOST_ROWS:
        return order, np.arange(len(order))
    half = MOST_ROWS // 2
    # One row stays free for the line that says how many are left out.
    return np.concatenate([order[:half], order[-half:]]), np.r_[0:half, half + 1 : MOST_ROWS + 1]


def _name_rows(axes: Axes, classes: Sequence[str], shown: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    ticks = {int(row): shortened(classes[label], _NAME_LENGTH) for row, label in zip(rows, shown.tolist(), strict=True)}
    if len(shown) < len(classes):
        ticks[MOST_ROWS // 2] = f"({len(classes) - len(shown)} classes between)"
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.set_ylim(-0.6, rows[-1] + 0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
