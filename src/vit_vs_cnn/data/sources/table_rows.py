"""What a table's rows say: the image, its label, its split and its group, in columns found by their usual names."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from vit_vs_cnn.config.data import ColumnSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import SplitName
from vit_vs_cnn.data.sources.split_names import split_named
from vit_vs_cnn.data.sources.table_files import Table

_USUAL_NAMES: dict[Literal["image", "label", "split"], frozenset[str]] = {
    "image": frozenset({"image", "img", "file_name", "filename", "file", "image_path", "path", "filepath"}),
    "label": frozenset(
        {"label", "labels", "class", "class_name", "target", "category", "diagnosis", "dx", "fine_label"}
    ),
    "split": frozenset({"split", "set", "subset"}),
}
# Names of an image where no column has its file.
_IDENTIFIERS = frozenset({"image_id", "image_name", "id"})


class MissingColumnError(UserError):
    """A table in which no column says what the images or the labels are."""


@dataclass(frozen=True)
class Row:
    """An image as its table names it, its label, "" for none, its split and its group where they are given."""

    image: str
    label: str
    split: SplitName | None
    group: str | None


@dataclass(frozen=True)
class Labelled:
    """A table as rows. `embedded` is the column with the images themselves, None where they are files.

    `class_names` are the names of labels that are numbers, where the table has them.
    """

    table: Table
    rows: list[Row]
    embedded: str | None
    class_names: dict[str, str]
    notes: tuple[str, ...] = ()


def has_label(table: Table, columns: ColumnSettings) -> bool:
    """Whether a column has the labels by its name; columns of zeros and ones may be anything."""
    return bool(columns.label) or any(column.lower() in _USUAL_NAMES["label"] for column in table.columns)


def rows_of(table: Table, columns: ColumnSettings) -> Labelled:
    """Read the rows of `table` from the columns that the settings name, or else from those with the usual names.

    Raises MissingColumnError where image or label has none or no row has a label, UserError where several columns could
    be meant or an image has several labels.
    """
    image = _image_column(table, columns.image)
    label = None if isinstance(columns.label, list) else _column(table, "label", columns.label)
    names = dict(enumerate(table.class_names.get(label or "", ())))
    if label:
        labels = [_label(table, cell) for cell in table.cells(label)]
        # Hugging Face marks the rows of a test split without labels with -1.
        labels = ["" if names and text == "-1" else text for text in labels]
    else:
        labels = _one_hot(table, columns.label if isinstance(columns.label, list) else _indicators(table, image))
    _refuse_several(table, set(filter(None, labels)))
    if not any(labels):
        raise MissingColumnError(f"{table.name}: no row has a label.")
    splits, notes = _splits(table, columns.split)
    images = [_text(cell) for cell in table.cells(image)]
    groups: list[str | None] = [None] * len(images)
    if columns.group:
        groups = [_text(cell) or None for cell in table.cells(_named(table, columns.group))]
    return Labelled(
        table=table,
        rows=[Row(*values) for values in zip(images, labels, splits, groups, strict=True)],
        embedded=image if image in table.embedded else None,
        class_names={str(number): name for number, name in names.items()},
        notes=notes,
    )


def _image_column(table: Table, chosen: str | None) -> str:
    if chosen is None and len(table.embedded) == 1:
        return table.embedded[0]
    column = _column(table, "image", chosen)
    identifiers = [name for name in table.columns if name.lower() in _IDENTIFIERS]
    if column is None and len(identifiers) == 1:
        return identifiers[0]
    if column is None:
        raise MissingColumnError(_advice(table, "image", identifiers))
    return column


def _column(table: Table, role: Literal["image", "label", "split"], chosen: str | None) -> str | None:
    if chosen:
        return _named(table, chosen)
    found = [name for name in table.columns if name.lower() in _USUAL_NAMES[role]]
    if len(found) > 1:
        raise UserError(_advice(table, role, found))
    return found[0] if found else None


def _named(table: Table, column: str) -> str:
    if column not in table.columns:
        raise MissingColumnError(
            f"data.columns: {table.name} has no column {column!r}; its columns are {', '.join(table.columns)}."
        )
    return column


def _advice(table: Table, role: str, found: Sequence[str]) -> str:
    which = f"{len(found)} columns that could be the {role}" if found else f"no column with a usual name for the {role}"
    example = found[0] if found else "NAME"
    return (
        f"data.path: {table.name} has {which}; its columns are {', '.join(table.columns)}: "
        f"name the right one, `data.columns: {{{role}: {example}}}`."
    )


def _text(cell: Any) -> str:
    """The text of a cell; the number 3.0, which some writers make of 3, is "3" again."""
    text = "" if cell is None or (isinstance(cell, float) and math.isnan(cell)) else str(cell).strip()
    return text.split(".")[0] if re.fullmatch(r"-?\d+\.0+", text) else text


def _label(table: Table, cell: Any) -> str:
    several = isinstance(cell, list) and len(cell) > 1
    text = _text(cell[0] if isinstance(cell, list) and len(cell) == 1 else "" if cell == [] else cell)
    if several or "|" in text:
        raise _several_labels(table, text)
    return text


def _refuse_several(table: Table, labels: set[str]) -> None:
    """Raise UserError where a text is a list: in brackets, or of other rows' labels with commas between."""
    for text in sorted(labels):
        parts = [part.strip() for part in re.split("[,;]", text)]
        if re.fullmatch(r"\[.*,.*\]", text) or (len(parts) > 1 and labels.issuperset(parts)):
            raise _several_labels(table, text)


def _several_labels(table: Table, text: str) -> UserError:
    return UserError(
        f"data.path: {table.name} gives an image several labels ({text}): this project classifies images that have "
        "one; keep the rows with one label, or join the labels to classes of their own."
    )


def _indicators(table: Table, image: str) -> list[str]:
    """The columns of zeros and ones: one for each class, where no column has the labels."""
    others = [column for column in table.columns if column != image and column not in table.embedded]
    found = [column for column in others if {_text(cell) for cell in table.cells(column)} <= {"0", "1"}]
    if len(found) < 2:
        raise MissingColumnError(_advice(table, "label", ()))
    return found


def _one_hot(table: Table, columns: Sequence[str]) -> list[str]:
    flags = [[_text(cell) == "1" for cell in table.cells(_named(table, column))] for column in columns]
    labels = []
    for row, values in enumerate(zip(*flags, strict=True)):
        names = [column for column, value in zip(columns, values, strict=True) if value]
        if len(names) > 1:
            raise UserError(
                f"data.path: {table.name} has several ones in row {row + 1} ({', '.join(names)}): images with several "
                f"labels cannot be used; name the columns of the classes, `data.columns: {{label: [{columns[0]}, …]}}`."
            )
        labels.append(names[0] if names else "")
    return labels


def _splits(table: Table, chosen: str | None) -> tuple[list[SplitName | None], tuple[str, ...]]:
    """The split of each row, by its column, else by the name of the table or of its folders."""
    column = _column(table, "split", chosen)
    path = PurePosixPath(table.name)
    notes: tuple[str, ...] = ()
    if column:
        cells = [_text(cell) for cell in table.cells(column)]
        splits = [split_named(cell) for cell in cells]
        unknown = sorted({cell for cell, split in zip(cells, splits, strict=True) if split is None})
        if not unknown:
            return splits, notes
        sentence = f"{table.name}: column {column} has values that are no split ({', '.join(map(repr, unknown[:5]))})"
        if chosen:
            raise UserError(f"data.columns.split: {sentence}: write train, val or test.")
        notes = (f"{sentence}: not read as splits",)
    words = {split_named(word) for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", path.stem)} - {None}
    named = [words.pop()] if len(words) == 1 else [split_named(part) for part in reversed(path.parent.parts)]
    return [next(filter(None, named), None)] * len(table.cells(table.columns[0])), notes
