"""What each picture of an explanation looks like; the numbers come from the explain room."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vit_vs_cnn.explain.attention import Attention
from vit_vs_cnn.explain.explanation import SampleExplanations
from vit_vs_cnn.explain.features import Filters, StageMaps
from vit_vs_cnn.explain.overlay import overlay
from vit_vs_cnn.report.grid import Tile, image_grid, resized
from vit_vs_cnn.report.style import NEUTRAL, SEQUENTIAL, new_figure

# Sides of a tile in pixels of the PNG.
_LOOK = 104
_HEAD = 104
_MAP = 84
_FILTER = 64

_HEADS_IN_A_ROW = 4
_FILTERS_IN_A_ROW = 8
_MOST_TILES = 8


def looks_figure(looks: SampleExplanations, classes: Sequence[str]) -> Figure:
    """A row per image: the image itself, Grad-CAM and attention rollout, as far as the contestant has them."""
    heats = {
        "Grad-CAM" if looks.cam_true is None else "CAM: says": looks.cam_predicted,
        "CAM: is": looks.cam_true,
        "attention": looks.attention.rollout if looks.attention else None,
    }
    shown = {title: heat for title, heat in heats.items() if heat is not None}
    rows = [
        [Tile(image), *(Tile(overlay(resized(image, _LOOK), heat[i])) for heat in shown.values())]
        for i, image in enumerate(looks.images)
    ]
    labels = [
        f"is {classes[label]}\nsays {classes[predicted]}\n{_percent(confidence)} sure\n{verdict}"
        for label, predicted, confidence, verdict in zip(
            looks.labels,
            looks.predicted,
            looks.confidence,
            np.where(looks.labels == looks.predicted, "✓ right", "✗ wrong"),
            strict=True,
        )
    ]
    return image_grid(rows, _LOOK, row_labels=labels, column_labels=["image", *shown])


def heads_figure(images: NDArray[np.uint8], heads: NDArray[np.float32]) -> Figure:
    """Each image, uint8 (H, W, 3), and beside it the attention (heads, G, G) of each head; brighter is more."""
    rows: list[list[Tile | None]] = []
    for image, maps in zip(images, heads, strict=True):
        tiles = [Tile(_coloured(one), f"head {number}") for number, one in enumerate(maps, start=1)]
        lines = [tiles[start : start + _HEADS_IN_A_ROW] for start in range(0, len(tiles), _HEADS_IN_A_ROW)]
        rows += [[Tile(image, "image") if line is lines[0] else None, *line] for line in lines]
    return image_grid(rows, _HEAD)


def distance_figure(attention: Attention, colour: str) -> Figure:
    """Mean attention distance of each head by block, and that of attention spread evenly."""
    figure = new_figure(6.0, 4.0)
    axes = figure.subplots()
    for block, distances in enumerate(attention.distance, start=1):
        axes.scatter([block] * len(distances), distances, color=colour, alpha=0.75, s=42, label="one head")
    even = axes.axhline(attention.even_distance, color=NEUTRAL, linestyle="--", label="attention spread evenly")
    axes.set_xlabel("block, from the image to the answer")
    axes.set_ylabel("mean attention distance (px)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0, top=1.25 * max(attention.even_distance, *(float(max(each)) for each in attention.distance)))
    axes.legend(handles=[axes.collections[0], even], loc="upper left", ncols=2)
    return figure


def similarity_figure(similarity: NDArray[np.float32]) -> Figure:
    """A grid of grids: the tile at (row, column) compares that patch's position with all positions."""
    grid = len(similarity)
    chosen = np.linspace(0, grid - 1, min(grid, _MOST_TILES)).round().astype(int)
    # A line of nothing parts the tiles.
    picture = np.full((len(chosen) * (grid + 1) - 1,) * 2, np.nan, np.float32)
    for i, row in enumerate(chosen):
        for j, column in enumerate(chosen):
            top, left = i * (grid + 1), j * (grid + 1)
            picture[top : top + grid, left : left + grid] = similarity[row, column]
    figure = new_figure(5.6, 5.0)
    axes = figure.subplots()
    drawn = axes.imshow(
        picture, cmap=SEQUENTIAL, interpolation="nearest", vmin=min(0.0, float(similarity.min())), vmax=1
    )
    middles = np.arange(len(chosen)) * (grid + 1) + (grid - 1) / 2
    axes.set_xticks(middles, [str(index + 1) for index in chosen])
    axes.set_yticks(middles, [str(index + 1) for index in chosen])
    axes.set_xlabel("column of the patch")
    axes.set_ylabel("row of the patch")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axes, label="cosine similarity", shrink=0.85)
    return figure


def filters_figure(filters: Filters) -> Figure:
    """The filters as small colour pictures."""
    tiles = [Tile(picture) for picture in filters.pictures]
    rows = [tiles[start : start + _FILTERS_IN_A_ROW] for start in range(0, len(tiles), _FILTERS_IN_A_ROW)]
    return image_grid(rows, _FILTER)


def stages_figure(image: NDArray[np.uint8], stages: Sequence[StageMaps]) -> Figure:
    """The image, and a row per stage with the channels that vary most; brighter is more active."""
    rows = [[Tile(image)], *([Tile(_coloured(one)) for one in stage.maps] for stage in stages)]
    labels = ["image", *(_stage_label(stage) for stage in stages)]
    return image_grid(rows, _MAP, row_labels=labels)


def _percent(probability: float) -> str:
    # Rounding must not make anything look certain.
    return "> 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def _stage_label(stage: StageMaps) -> str:
    grid = stage.maps.shape[-1]
    return f"{stage.name}\n{grid}×{grid}\n{stage.total} channels"


def _coloured(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """`values` (G, G) as colours uint8 (G, G, 3) from their least to their largest."""
    spread = float(np.ptp(values))
    scaled = (values - values.min()) / spread if spread > 0 else np.zeros_like(values)
    colours: NDArray[np.uint8] = mpl.colormaps[SEQUENTIAL](scaled, bytes=True)[..., :3]
    return colours
