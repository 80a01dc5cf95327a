"""The charts of the exploratory analysis, and images under augmentation."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vit_vs_cnn.config.recipe import AugmentSettings
from vit_vs_cnn.core.colours import PALETTE
from vit_vs_cnn.core.order import natural_order
from vit_vs_cnn.core.start_up import without
from vit_vs_cnn.report.class_axes import MOST_ROWS, class_rows, name_rows
from vit_vs_cnn.report.grid import Tile, image_grid
from vit_vs_cnn.report.style import (
    CHANNEL_COLOURS,
    DIVERGING,
    INK,
    NEUTRAL,
    SPLIT_COLOURS,
    new_figure,
)

with without("scipy.stats", "scipy.cluster"):  # for what no figure here has
    import seaborn as sns

CHANNELS = list(CHANNEL_COLOURS)
_BLUE, _ORANGE = PALETTE[:2]
_LIGHT_BLUE = "#A7CCE5"


def class_distribution(counts: pd.DataFrame) -> Figure:
    """Images per class (the index of `counts`), one panel for each column (split)."""
    rows = class_rows(counts["train"]) if len(counts) > MOST_ROWS else natural_order(counts.index.tolist())
    figure = new_figure(height=1.1 + 0.25 * len(rows))
    panels = figure.subplots(1, len(counts.columns), sharey=True)
    for axes, (split, images) in zip(panels, counts.items(), strict=True):
        colour = SPLIT_COLOURS[str(split)]
        sns.barplot(
            x=images, y=range(len(images)), order=rows, orient="h", color=colour, saturation=1, width=0.75, ax=axes
        )
        axes.bar_label(axes.containers[0], fmt="{:,.0f}", padding=2, fontsize=8, color=NEUTRAL)
        axes.set(title=f"{split}: {images.sum():,}", xlabel="images", xlim=(0, 1.45 * max(images.max(), 1)))
        axes.xaxis.set_major_locator(MaxNLocator(2, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        name_rows(axes, counts.index.tolist(), rows)
    return figure


def colour_histogram(histogram: NDArray[np.int64]) -> Figure:
    """Share of the pixels at each of the 256 levels, by channel, from counts (3, 256)."""
    share = pd.DataFrame(100 * histogram.T / histogram[0].sum(), columns=CHANNELS)
    figure = new_figure()
    axes = figure.subplots()
    grey = share.nunique(axis=1).max() == 1
    shown = share[["red"]].set_axis(["red = green = blue (grey)"], axis=1) if grey else share
    sns.histplot(
        shown.melt(var_name="channel", value_name="share", ignore_index=False).reset_index(names="level"),
        x="level",
        weights="share",
        hue="channel",
        palette=[NEUTRAL] if grey else CHANNEL_COLOURS,
        discrete=True,
        element="step",
        alpha=0.6 if grey else 0.12,
        ax=axes,
    )
    sns.move_legend(axes, "lower left", bbox_to_anchor=(0, 1), ncols=3, title=None)
    axes.set(xlabel="level (0 dark – 255 bright)", xlim=(-2, 257), xticks=[0, 64, 128, 192, 255])
    # Black and white often tower over all other levels, which a linear scale would flatten.
    axes.set_yscale("function", functions=(np.sqrt, np.square))
    axes.set(ylabel="share of the pixels, % (square root)", ylim=0)
    axes.yaxis.set_major_formatter("{x:g}")
    return figure


def channel_correlation(correlation: pd.DataFrame) -> Figure:
    """Heat map of the correlation of the channels (3, 3)."""
    figure = new_figure()
    axes = figure.subplots()
    sns.heatmap(
        correlation,
        annot=True,
        fmt=".2f",
        annot_kws={"fontsize": 12},
        square=True,
        cmap=DIVERGING,
        vmin=-1,
        vmax=1,
        cbar_kws={"label": "Pearson's correlation", "ticks": [-1, -0.5, 0, 0.5, 1]},
        ax=axes,
    )
    axes.tick_params(length=0, rotation=0)
    return figure


def measure_by_class(values: "pd.Series[float]", labels: NDArray[np.int64], spread: pd.DataFrame, unit: str) -> Figure:
    """A measure's distribution over all images, below it a box for each class (index of `spread`), outliers as dots."""
    rows = class_rows(spread["median"])
    boxes_height = 0.4 + 0.3 * len(rows)
    figure = new_figure(height=2.2 + boxes_height)
    overall, boxes = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, boxes_height])
    sns.histplot(x=values, bins=60, color=_BLUE, alpha=1, linewidth=0, ax=overall)
    overall.axvline(values.median(), color=INK, linewidth=1.5, linestyle="--")
    overall.set(title=f"All training images: median {values.median():.1f}", ylabel="images")
    overall.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    overall.yaxis.set_major_formatter("{x:,.0f}")
    shown = np.isin(labels, rows)
    sns.boxplot(
        x=values[shown],
        y=labels[shown],
        order=rows,
        orient="h",
        width=0.6,
        color=_LIGHT_BLUE,
        linecolor=_BLUE,
        saturation=1,
        medianprops={"color": INK, "linewidth": 2},
        flierprops={
            "marker": ".",
            "markerfacecolor": _ORANGE,
            "markersize": 8,
            "markeredgewidth": 0,
            "rasterized": True,
        },
        ax=boxes,
    )
    boxes.set(title="By class, outliers as dots", xlabel=unit)
    name_rows(boxes, spread.index.tolist(), rows)
    return figure


def augmentation(
    images: NDArray[np.uint8], labels: Sequence[str], settings: AugmentSettings, draws: int, mixed: int, seed: int
) -> Figure:
    """Images uint8 (N, H, W, 3), and beside each `draws` random draws of its augmentation, the last `mixed` blended."""
    # Importing torch takes seconds: only this figure needs it.
    import torch

    from vit_vs_cnn.data.augment.batch import augment
    from vit_vs_cnn.data.augment.mix import mix

    generator = torch.Generator().manual_seed(seed)
    batch = torch.from_numpy(images).repeat_interleave(draws, dim=0)
    augmented = augment(batch, settings, generator).reshape(len(images), draws, *images.shape[1:])
    for draw in range(draws - mixed, draws):
        pixels = augmented[:, draw].permute(0, 3, 1, 2).float()
        blend, _ = mix(pixels, torch.ones(len(images), 1), settings, generator)
        augmented[:, draw] = blend.permute(0, 2, 3, 1).round().to(torch.uint8)
    headings = [f"{'draw' if draw <= draws - mixed else 'mixed'} {draw}" for draw in range(1, draws + 1)]
    return image_grid(
        [[Tile(image), *map(Tile, row)] for image, row in zip(images, augmented.numpy(), strict=True)],
        tile_side(images),
        row_labels=labels,
        column_labels=["original", *headings],
    )


def tile_side(images: NDArray[np.uint8]) -> int:
    """The side of a tile: few pixels are shown large; photographs smaller, because they make a PNG heavy."""
    return 96 if images.shape[1] <= 96 else 72
