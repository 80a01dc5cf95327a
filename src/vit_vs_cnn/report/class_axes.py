"""Axes of class names that stay legible, for three classes as for a thousand."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from vit_vs_cnn.core.order import natural_order
from vit_vs_cnn.core.start_up import without
from vit_vs_cnn.report.fonts import plain, shortened, text_width
from vit_vs_cnn.report.style import NEUTRAL, WIDTH, new_figure

with without("scipy.stats", "scipy.cluster"):  # for what no figure here has
    import seaborn as sns

MOST_ROWS = 40
# Stands for all classes between the two ends; no class has this position.
OMITTED = -1

_MOST_NAMES = 100
_MOST_ANNOTATED = 20
_NAME_LENGTH = 24


def class_rows(values: "pd.Series[Any]") -> list[int]:
    """The positions of the classes by falling value, NaN last, as rows from top to bottom.

    Of more than `MOST_ROWS` classes only the two ends, with one row `OMITTED` between them: reindexing a table by these
    rows, or giving them to seaborn as `order`, leaves that row empty.
    """
    order: list[int] = np.argsort(-values.to_numpy(float), kind="stable").tolist()
    if len(order) <= MOST_ROWS:
        return order
    half = MOST_ROWS // 2
    return [*order[:half], OMITTED, *order[-half:]]


def name_rows(axes: Axes, classes: Sequence[str], rows: Sequence[int]) -> None:
    """Write the names of the classes at `rows` along the y axis, from top to bottom."""
    omitted = f"({len(classes) - MOST_ROWS} classes between)"
    names = [omitted if row == OMITTED else shortened(classes[row], _NAME_LENGTH) for row in rows]
    plain(axes.set_yticks(range(len(rows)), names))
    axes.set(ylim=(len(rows) - 0.4, -0.6), ylabel="")
    axes.tick_params(axis="y", length=0)


def class_dots(
    scores: pd.DataFrame, order: "pd.Series[float]", classes: Sequence[str], colours: Mapping[str, str], markers: str
) -> Figure:
    """A row per class, the highest of `order` at the top, with a dot for each column of `scores`, joined by a line."""
    rows = class_rows(order)
    shown = scores.reindex(rows)
    figure = new_figure(height=1.3 + 0.26 * len(rows))
    axes = figure.subplots()
    axes.hlines(range(len(rows)), shown.min(axis=1), shown.max(axis=1), color=NEUTRAL, linewidth=1.5)
    # Falling sizes keep dots apart that lie on one another.
    sizes = range(40 * len(shown.columns), 0, -40)
    for (name, values), marker, size in zip(shown.items(), markers, sizes, strict=False):
        colour = colours[str(name)]
        axes.scatter(values, range(len(rows)), s=size, color=colour, marker=marker, label=name, zorder=3, clip_on=False)
    name_rows(axes, classes, rows)
    axes.set_xlim(min(0.9, shown.min().min() - 0.03), 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside upper left", ncols=3, markerscale=0.8)
    return figure


def class_matrix(
    values: NDArray[Any], classes: Sequence[str], annotations: NDArray[np.str_], label: str, **options: Any
) -> Figure:
    """A heat map (K, K) of true classes (rows) by predicted classes (columns), in the natural order of their names.

    `annotations` (K, K) are written into the cells where there is room; of more than a hundred classes only some have
    their names. `label` is that of the colour bar, `options` are those of seaborn's heatmap.
    """
    order = natural_order(classes)
    names = [shortened(classes[label], _NAME_LENGTH) for label in order]
    side = float(np.clip(0.32 * len(names), 3.2, 12.0))
    figure = new_figure(side + WIDTH - 3.2, side + 1.0)
    axes = figure.subplots()
    step = -(-len(names) // _MOST_NAMES)
    few = len(names) <= _MOST_ANNOTATED
    sns.heatmap(
        pd.DataFrame(values[np.ix_(order, order)]),
        annot=annotations[np.ix_(order, order)] if few else None,
        fmt="",
        annot_kws={"fontsize": 8},
        square=True,
        rasterized=not few,
        xticklabels=False,
        yticklabels=False,
        cbar_kws={"label": label, "shrink": 0.8},
        ax=axes,
        **options,
    )
    places = np.arange(0, len(names), step)
    plain(axes.set_xticks(places + 0.5, names[::step]))
    plain(axes.set_yticks(places + 0.5, names[::step]))
    size = 9 if few else float(np.clip(420 / len(names), 5.5, 9))
    upright = few and max(map(text_width, names)) <= 3
    axes.tick_params(axis="x", length=0, labelsize=size, rotation=0 if upright else 90)
    axes.tick_params(axis="y", length=0, labelsize=size, rotation=0)
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure
