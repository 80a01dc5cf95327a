"""The plots of an explanation; the arrays in them come from the explain room."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vit_vs_cnn.explain.features import Filters, StageMaps
from vit_vs_cnn.explain.overlay import overlay
from vit_vs_cnn.explain.samples import SampleExplanations
from vit_vs_cnn.report.grid import Tile, image_grid, resized
from vit_vs_cnn.report.style import NEUTRAL, SEQUENTIAL, new_figure

# Sides of a tile in pixels of the PNG.
_SAMPLE = 104
_HEAD = 104
_MAP = 84
_FILTER = 64

_HEADS_PER_ROW = 4
_FILTERS_PER_ROW = 8
_MOST_TILES = 8


def samples_figure(samples: SampleExplanations, classes: Sequence[str]) -> Figure:
    """A row per image: the image itself, Grad-CAM and attention rollout, as far as the contestant has them."""
    saliency = {
        "Grad-CAM" if samples.cam_true is None else "CAM: says": samples.cam_predicted,
        "CAM: is": samples.cam_true,
        "attention": samples.attention.rollout if samples.attention else None,
    }
    columns = {title: maps for title, maps in saliency.items() if maps is not None}
    rows, labels = [], []
    for i, image in enumerate(samples.images):
        rows.append([Tile(image), *(Tile(overlay(resized(image, _SAMPLE), maps[i])) for maps in columns.values())])
        label, predicted, confidence = samples.labels[i], samples.predicted[i], samples.confidence[i]
        # Rounding must not make a prediction look certain.
        percent = "> 99 %" if confidence > 0.99 else f"{100 * confidence:.0f} %"
        verdict = "✓ right" if label == predicted else "✗ wrong"
        labels.append(f"is {classes[label]}\nsays {classes[predicted]}\n{percent} sure\n{verdict}")
    return image_grid(rows, _SAMPLE, row_labels=labels, column_labels=["image", *columns])


def heads_figure(images: NDArray[np.uint8], heads: NDArray[np.float32]) -> Figure:
    """Each image, uint8 (H, W, 3), and beside it the attention (heads, G, G) of each head; brighter is more."""
    rows: list[list[Tile | None]] = []
    for image, maps in zip(images, heads, strict=True):
        tiles = [Tile(_coloured(head), f"head {number}") for number, head in enumerate(maps, start=1)]
        lines = _lines(tiles, _HEADS_PER_ROW)
        rows += [[Tile(image, "image"), *lines[0]], *([None, *line] for line in lines[1:])]
    return image_grid(rows, _HEAD)


def distance_figure(blocks: Sequence[int], pixels: Sequence[float], even_distance: float, colour: str) -> Figure:
    """Mean attention distance of each head by its block, and that of attention spread evenly."""
    figure = new_figure(6.0, 4.0)
    axes = figure.subplots()
    heads = axes.scatter(blocks, pixels, color=colour, alpha=0.75, s=42, label="one head")
    even = axes.axhline(even_distance, color=NEUTRAL, linestyle="--", label="attention spread evenly")
    axes.set_xlabel("block, from the image to the answer")
    axes.set_ylabel("mean attention distance (px)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0, top=1.25 * max(even_distance, *pixels))
    axes.legend(handles=[heads, even], loc="upper left", ncols=2)
    return figure


def similarity_figure(similarity: NDArray[np.float32]) -> Figure:
    """A grid of grids: the tile at (row, column) compares that patch's position with all positions."""
    grid = len(similarity)
    chosen = np.linspace(0, grid - 1, min(grid, _MOST_TILES)).round().astype(int)
    # An empty line separates the tiles.
    tiles = np.pad(similarity[np.ix_(chosen, chosen)], ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    side = len(chosen) * (grid + 1)
    figure = new_figure(5.6, 5.0)
    axes = figure.subplots()
    drawn = axes.imshow(
        tiles.swapaxes(1, 2).reshape(side, side)[:-1, :-1],
        cmap=SEQUENTIAL,
        interpolation="nearest",
        vmin=min(0.0, float(similarity.min())),
        vmax=1,
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
    """The filters as small colour images."""
    return image_grid(_lines([Tile(image) for image in filters.images], _FILTERS_PER_ROW), _FILTER)


def stages_figure(image: NDArray[np.uint8], stages: Sequence[StageMaps]) -> Figure:
    """The image, and a row per stage with the channels that vary most; brighter is more active."""
    rows, labels = [[Tile(image)]], ["image"]
    for stage in stages:
        grid = stage.maps.shape[-1]
        rows.append([Tile(_coloured(channel)) for channel in stage.maps])
        labels.append(f"{stage.name}\n{grid}×{grid}\n{stage.total} channels")
    return image_grid(rows, _MAP, row_labels=labels)


def _lines(tiles: Sequence[Tile], length: int) -> list[Sequence[Tile]]:
    return [tiles[start : start + length] for start in range(0, len(tiles), length)]


def _coloured(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """`values` (G, G) as colours uint8 (G, G, 3) from their minimum to their maximum."""
    colours: NDArray[np.uint8] = mpl.colormaps[SEQUENTIAL](mpl.colors.Normalize()(values), bytes=True)[..., :3]
    return colours
