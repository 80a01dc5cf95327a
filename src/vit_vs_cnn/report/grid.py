"""Figures of images in a grid, each pixel of an image on whole pixels of the PNG."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vit_vs_cnn.report.fonts import shortened, text_width
from vit_vs_cnn.report.style import DOTS_PER_INCH, new_figure

# Pixels of the PNG, at the style's resolution.
_GAP = 8
_HEADER = 26
_LINE_HEIGHT = 16
_LABEL_CHARACTER = 11
_CAPTION_CHARACTER = 9
_LONGEST_LABEL = 16
_FRAME = 209


@dataclass(frozen=True)
class Tile:
    """An image, uint8 (H, W, 3), and the lines of text under it, which are shortened to its width."""

    image: NDArray[np.uint8]
    caption: str = ""


def image_grid(
    rows: Sequence[Sequence[Tile | None]],
    side: int,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> Figure:
    """A figure of square tiles, `side` pixels each; None leaves a place empty.

    It is one image in one pair of axes: a pair for each tile would take seconds to draw.
    """
    row_labels = [_fitted(label, _LONGEST_LABEL) for label in row_labels]
    label_width = _LABEL_CHARACTER * max(
        (text_width(line) for label in row_labels for line in label.split("\n")), default=0
    )
    lines = max((tile.caption.count("\n") + 1 for row in rows for tile in row if tile and tile.caption), default=0)
    pitch_x, pitch_y = side + _GAP, side + _GAP + lines * _LINE_HEIGHT
    left, top = label_width + 2 * _GAP, _HEADER * bool(column_labels) + _GAP
    canvas = np.full((top + pitch_y * len(rows), left + pitch_x * max(map(len, rows)), 3), 255, np.uint8)
    # Axes over the whole figure, in which a pixel of the canvas is a pixel of the PNG.
    figure = new_figure(canvas.shape[1] / DOTS_PER_INCH, canvas.shape[0] / DOTS_PER_INCH, arranged=False)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for i, row in enumerate(rows):
        y = top + i * pitch_y
        if row_labels:
            axes.text(left - _GAP, y + side / 2, row_labels[i], ha="right", va="center", fontsize=10, parse_math=False)
        for j, tile in enumerate(row):
            if tile is not None:
                x = left + j * pitch_x
                # A thin frame, or a white image would have no edge.
                canvas[y - 1 : y + side + 1, x - 1 : x + side + 1] = _FRAME
                canvas[y : y + side, x : x + side] = resized(tile.image, side)
                caption = _fitted(tile.caption, int(pitch_x / _CAPTION_CHARACTER))
                below = axes.text(x + side / 2, y + side + 3, caption, ha="center", va="top", linespacing=1.05)
                below.set(fontsize=8, parse_math=False)
    for j, label in enumerate(column_labels):
        axes.text(left + j * pitch_x + side / 2, top - _GAP, label, ha="center", va="bottom", fontsize=10)
    axes.imshow(canvas, interpolation="nearest")
    return figure


def in_rows(tiles: Sequence[Tile], length: int) -> list[Sequence[Tile]]:
    """`tiles` in rows of `length`, the last of which may be shorter."""
    return [tiles[first : first + length] for first in range(0, len(tiles), length)]


def resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """`image` as a square of `side` pixels: averaged where it shrinks, with its pixels visible where it grows."""
    method = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(image, (side, side), interpolation=method), np.uint8)


def _fitted(text: str, length: int) -> str:
    return "\n".join(shortened(line, length) for line in text.split("\n"))
