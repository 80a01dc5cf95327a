"""Where the contestants err: how far together, what their average reaches, and pictures of suspect labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vit_vs_cnn.core.console import inert, points, points_between
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.evaluation.errors import (
    Average,
    ByReplicate,
    Overlap,
    average_of_all,
    label_suspects,
    mistakes,
    only_right,
    overlaps,
)
from vit_vs_cnn.report.figure_writer import FigureWriter
from vit_vs_cnn.report.grid import Tile, image_grid, in_rows

_TILE = 118
_TILES_PER_ROW = 6
_MOST_TILES = 12


@dataclass(frozen=True)
class Errors:
    """What the contestants get right and wrong together on the test images of these `names`.

    The tables have the columns of `label_suspects`, and of `mistakes`.
    """

    names: tuple[str, ...]
    overlaps: Sequence[Overlap]
    average: Average
    suspects: pd.DataFrame
    only_right: Mapping[str, pd.DataFrame]
    mistakes: pd.DataFrame


def find_errors(predictions: ByReplicate, confidence: float) -> Errors | None:
    """Compare the errors of all contestants; None of one alone."""
    if len(predictions) == 1:
        return None
    return Errors(
        names=next(iter(predictions.values()))[0].names,
        overlaps=overlaps(predictions),
        average=average_of_all(predictions, confidence),
        suspects=label_suspects(predictions),
        only_right={name: only_right(predictions, name) for name in predictions},
        mistakes=mistakes(predictions),
    )


def error_sentences(errors: Errors) -> list[str]:
    """How far they err together, and what the average of all would reach."""
    sentences = []
    for pair in errors.overlaps:
        consistency = pair.error_consistency
        sentences.append(
            f"{pair.first} and {pair.second} are both right on {_images(pair.both)} test images, only {pair.first} on "
            f"{_images(pair.first_only)}, only {pair.second} on {_images(pair.second_only)}, neither on "
            f"{_images(pair.neither)}; were their errors independent, neither would be on "
            f"{_images(pair.expected_neither)}"
            + (f" (error consistency κ = {consistency:.2f})." if consistency is not None else ".")
        )
    average = errors.average
    sentences.append(
        f"The average of the probabilities of all would be right on {points(average.accuracy)} %, "
        f"{points(average.difference, sign=True)} points beside {average.best} alone "
        f"({points_between(average.low, average.high)}), at the cost of all of them."
    )
    return sentences


def _images(count: float) -> str:
    """A count, with a decimal place where a small mean over pairs of replicates has one."""
    return f"{count:,.0f}" if count >= 100 or abs(count - round(count)) < 0.05 else f"{count:,.1f}"


def error_tiles(errors: Errors, test: Split, classes: Sequence[str]) -> dict[str, dict[str, list[Tile]]]:
    """The images of each figure as tiles, in rows by their heading; a figure or a row without images is not there.

    Raises UserError where `errors` are of other images than `test` has.
    """
    if errors.names != test.names:
        raise UserError("the evaluations are of other test images than data/prepared/test has; run `dvc repro`.")
    suspects = _tiles(errors.suspects.head(_MOST_TILES), test.images, classes, "they say")
    alone = {
        f"only {name}": _tiles(found.head(_TILES_PER_ROW), test.images, classes, "others:")
        for name, found in errors.only_right.items()
        if len(found)
    }
    figures = {"label_suspects": {"": suspects} if suspects else {}, "only_right": alone}
    return {name: rows for name, rows in figures.items() if rows}


def write_errors(errors: Errors, test: Split, classes: Sequence[str], folder: Path) -> None:
    """Write the pictures, the tables with all file names, and figures.json into `folder`.

    Raises UserError where `errors` are of other images than `test` has.
    """
    writer, tiles = FigureWriter(folder, "errors"), error_tiles(errors, test, classes)
    writer.table("label_suspects", _with_names(errors.suspects, classes))
    if suspects := tiles.get("label_suspects", {}).get(""):
        figure = image_grid(in_rows(suspects, _TILES_PER_ROW), _TILE)
        alt = f"The first image: {', '.join(suspects[0].caption.splitlines())}"
        writer.add_images("label_suspects", figure, alt, shown=len(suspects), images=len(errors.suspects))
    else:
        writer.skip("label_suspects")
    named = [_with_names(found, classes).assign(contestant=name) for name, found in errors.only_right.items()]
    writer.table("only_right", pd.concat(named))
    if alone := tiles.get("only_right"):
        counts = ", ".join(f"{contestant} {len(found):,}" for contestant, found in errors.only_right.items())
        figure = image_grid([*alone.values()], _TILE, row_labels=[*alone])
        alt = f"Images in rows: {', '.join(f'{heading} is right ({len(tiles)})' for heading, tiles in alone.items())}"
        writer.add_images("only_right", figure, alt, counts=counts)
    else:
        writer.skip("only_right")
    writer.table("mistakes", _with_names(errors.mistakes, classes))
    writer.close()


def _tiles(found: pd.DataFrame, images: NDArray[np.uint8], classes: Sequence[str], verb: str) -> list[Tile]:
    return [
        Tile(
            images[row["position"]],
            f"{Path(row['name']).name}\nis {classes[row['label']]}\n{verb} {classes[row['predicted']]}\n"
            f"{100 * row['confidence']:.0f} % sure",
        )
        for row in found.to_dict("records")
    ]


def _with_names(found: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The table with the names of classes, for a spreadsheet."""
    of_classes = [column for column in found.columns if column.endswith(("label", "predicted"))]
    columns = {column: [inert(classes[label]) for label in found[column]] for column in of_classes}
    return found.assign(name=[inert(name) for name in found["name"]], **columns).drop(columns="position")
