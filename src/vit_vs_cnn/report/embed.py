"""Pictures as parts of a page that is one file."""

import base64
import io
from collections.abc import Collection
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vit_vs_cnn.core.console import printable
from vit_vs_cnn.report.figure_writer import FigureIndex
from vit_vs_cnn.report.grid import Tile, resized
from vit_vs_cnn.report.svg import inline_svg

# Photographs make pictures of megabytes as PNG, and a report is sent by mail.
_LARGEST_PNG = 200_000
# The largest side of a tile's image: what a page shows, twice as fine.
_LARGEST_TILE = 192


@dataclass(frozen=True)
class Embedded:
    """A picture on a page: its `name`, title and caption, and the HTML that shows it."""

    name: str
    title: str
    caption: str
    html: str


@dataclass(frozen=True)
class EmbeddedFigures:
    """The figures of a folder, and a sentence for each that had to be skipped."""

    figures: tuple[Embedded, ...]
    skipped: tuple[str, ...]

    def named(self, name: str) -> Embedded:
        """The figure of this name."""
        return next(figure for figure in self.figures if figure.name == name)


@dataclass(frozen=True)
class EmbeddedTile:
    """A small image on a page, as a data URI, and the lines below it."""

    source: str
    lines: tuple[str, ...]


def embedded_figures(folder: Path, only: Collection[str] | None = None) -> EmbeddedFigures:
    """The figures of `folder`, of these names if `only` says so.

    Raises UserError where the stage that makes them has not run.
    """
    index = FigureIndex.read(folder / "figures.json", "run `dvc repro` to make the figures")
    figures = []
    for entry in index.figures:
        path = folder / entry.file
        if only is None or path.stem in only:
            alt = printable(f"{entry.title}. {entry.alt}" if entry.alt else entry.title)
            html = _html(path, f"{folder.name}-{path.stem}", alt)
            figures.append(Embedded(path.stem, entry.title, entry.caption, html))
    return EmbeddedFigures(tuple(figures), index.skipped)


def embedded_tile(tile: Tile) -> EmbeddedTile:
    """The tile for a page, which shows the pixels of a small image as squares."""
    return EmbeddedTile(image_source(tile.image), tuple(tile.caption.split("\n")))


def image_source(image: NDArray[np.uint8]) -> str:
    """An image uint8 (S, S, 3) as a data URI, at most 192 pixels wide."""
    shown, file = Image.fromarray(resized(image, min(len(image), _LARGEST_TILE))), io.BytesIO()
    if len(image) <= 64:
        shown.save(file, "PNG")
        return _data_uri(file.getvalue(), "png")
    shown.save(file, "WEBP", quality=80)
    return _data_uri(file.getvalue(), "webp")


def _html(path: Path, name: str, alt: str) -> str:
    if path.suffix == ".svg":
        return inline_svg(path, name, alt)
    content, kind = path.read_bytes(), "png"
    if len(content) > _LARGEST_PNG:
        smaller = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").save(smaller, "WEBP", quality=80)
        content, kind = smaller.getvalue(), "webp"
    return f'<img src="{_data_uri(content, kind)}" alt="{escape(alt)}">'


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
