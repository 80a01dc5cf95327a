"""Images that tables list with their labels: files beside the tables, or stored in them."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.archive import Member, Store, open_store
from vit_vs_cnn.data.dataset import PREPARED_SPLITS
from vit_vs_cnn.data.file_kinds import has_image_suffix, is_clutter
from vit_vs_cnn.data.sources.folder_tree import shown
from vit_vs_cnn.data.sources.source import RowFinding, Source, Unreadable
from vit_vs_cnn.data.sources.split_names import split_named
from vit_vs_cnn.data.sources.table_files import Table, is_table, read_table
from vit_vs_cnn.data.sources.table_rows import Labelled, MissingColumnError, Row, has_label, rows_of

_Found = dict[RowFinding, list[str]]


@dataclass(frozen=True)
class _Files:
    """The files of a store by their paths, and the paths of its images by their names with and without suffix."""

    members: dict[str, Member]
    images: dict[str, list[str]]


def open_table(settings: DataSettings) -> Source:
    """Open the images that the tables at `settings.path` list: one table, or a folder or archive with tables in it.

    Images are in the order of the tables' names and of their rows. Raises UserError if no table lists images and
    labels, or a path leads outside `settings.path`.
    """
    path = Path(settings.path)
    if is_table(path.name) and path.is_file():
        return _source([read_table(path.name, path)], settings, Store([], lambda _: iter(())))
    store = open_store(path)
    tables = [_open(path, store, member) for name, member in sorted(_members(store).items()) if is_table(name)]
    if not tables:
        raise UserError(f"data.path: {path} holds no table: expected .csv, .tsv, .jsonl or .parquet.")
    return _source(tables, settings, store)


def open_metadata(settings: DataSettings, store: Store) -> Source | None:
    """Open the images that Hugging Face's metadata.csv or metadata.jsonl in `store` list with labels, None without."""
    tables: list[Table] = []
    for name, member in sorted(_members(store).items()):
        if is_table(name) and PurePosixPath(name).stem == "metadata":
            # What cannot be read is not Hugging Face's: such files lie in folders of classes too.
            with suppress(UserError):
                tables.append(_open(Path(settings.path), store, member))
    try:
        named = [table for table in tables if "file_name" in table.columns and has_label(table, settings.columns)]
        return _source(named, settings, store)
    except MissingColumnError:
        return None


def _members(store: Store) -> dict[str, Member]:
    """The files by their paths, without hidden ones and those that systems add."""
    files = {shown(posixpath.normpath(member.name)): member for member in store.members if not member.is_folder}
    return {name: member for name, member in files.items() if not any(map(is_clutter, name.split("/")))}


def _open(path: Path, store: Store, member: Member) -> Table:
    if path.is_dir():
        return read_table(member.name, path / member.name)
    if member.problem:
        raise UserError(f"{path}: {member.name} has {member.problem}: unpack the archive.")
    name, content = next(store.read([member.name]))
    return read_table(name, content)


def _source(tables: Sequence[Table], settings: DataSettings, store: Store) -> Source:
    labelled, notes = _labelled(tables, settings)
    files = _files(store, settings)
    rows, found = _usable_rows(labelled, files, settings)
    classes = _class_names(rows, labelled, settings)
    label_of = {name: label for label, name in enumerate(dict.fromkeys(classes.values()))}
    if len(label_of) < 2:
        lost = [
            f"{len(names):,} × {kind.replace('_', ' ')}" for kind, names in found.items() if kind != "unlisted_file"
        ]
        also = f"; passed over: {', '.join(lost)}" if lost else ""
        raise UserError(
            f"data.path: the usable rows of the tables in {settings.path} have only one class "
            f"({', '.join(label_of) or 'not even one'}){also}."
        )
    problems = {member.name: member.problem for member in files.members.values() if member.problem}
    splits = _splits(rows, settings)
    kept = [index for index, row in enumerate(rows) if row.image not in problems]
    position = {rows[index].image: place for place, index in enumerate(kept)}
    return Source(
        description=f"images listed in {', '.join(part.table.name for part in labelled[:3])}",
        classes=tuple(label_of),
        names=tuple(position),
        labels=np.array([label_of[classes[rows[index].label]] for index in kept], np.int64),
        splits=np.array([splits[index] for index in kept], np.int64),
        missing=tuple(split for split in ("test", "val") if PREPARED_SPLITS.index(split) not in splits),
        read=lambda: _read(position, labelled, files, store),
        unreadable=tuple(Unreadable(row.image, problems[row.image]) for row in rows if row.image in problems),
        groups=tuple(rows[index].group or rows[index].image for index in kept) if settings.columns.group else None,
        notes=notes,
        row_findings=found,
    )


def _read(
    position: Mapping[str, int], labelled: Sequence[Labelled], files: _Files, store: Store
) -> Iterator[tuple[int, bytes]]:
    for name, content in store.read(position.keys() & {member.name for member in files.members.values()}):
        yield position[name], content
    for part in labelled:
        if part.embedded:
            for name, content in zip(part.table.cells(part.embedded), part.table.images(part.embedded), strict=True):
                if name in position:
                    yield position[name], content


def _labelled(tables: Sequence[Table], settings: DataSettings) -> tuple[list[Labelled], tuple[str, ...]]:
    """The tables with images and labels, and a note on every other. Raises UserError if there is none."""
    labelled, passed = [], []
    for table in tables:
        try:
            if re.search("submission", PurePosixPath(table.name).stem, re.IGNORECASE):
                raise MissingColumnError(
                    f"data.path: {table.name} is a form for the answers of a competition: name a table with labels."
                )
            labelled.append(rows_of(table, settings.columns))
        except MissingColumnError as error:
            passed.append(error)
    if not labelled:
        raise passed[0] if passed else MissingColumnError("data.path: holds no table of images and labels.")
    notes = [note for part in labelled for note in part.notes]
    return labelled, (*notes, *(f"passed over: {str(error).removeprefix('data.path: ')}" for error in passed))


def _files(store: Store, settings: DataSettings) -> _Files:
    members = _members(store)
    images: dict[str, list[str]] = defaultdict(list)
    for name in members:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(f"data.path: the file name {name!r} is not UTF-8: rename the file.") from None
        inside, path = PurePosixPath(name), PurePosixPath(shown(settings.images or ""))
        if has_image_suffix(inside.name) and inside.is_relative_to(path):
            images[inside.name].append(name)
            images[inside.stem].append(name)
    if settings.images and not images:
        raise UserError(f"data.images: {settings.path} has no images in {settings.images}: name a folder inside it.")
    return _Files(members, images)


def _usable_rows(
    labelled: Sequence[Labelled], files: _Files, settings: DataSettings
) -> tuple[list[Row], dict[RowFinding, tuple[str, ...]]]:
    """One row for each image that is there and has one label, and what does not fit, by kind."""
    found: _Found = defaultdict(list)
    located = [row for part in labelled for row in _located(part, files, settings, found)]
    if not located:
        raise UserError(
            f"data.path: none of the {len(found['missing_file']):,} images in the tables is in {settings.path} (the "
            f"first: {found['missing_file'][0]}): name in data.path the folder that has tables and images, and in "
            "data.images the folder in it that has the images."
        )
    if any(part.embedded is None for part in labelled):
        listed = {row.image for row in located}
        images = {name for names in files.images.values() for name in names}
        found["unlisted_file"] = sorted(name for name in images if files.members[name].name not in listed)
    rows = _consistent(located, found)
    return rows, {kind: tuple(names) for kind, names in found.items()}


def _located(part: Labelled, files: _Files, settings: DataSettings, found: _Found) -> Iterator[Row]:
    """The rows whose images are there, each with the image's name in the store and the split that its folders say."""
    if part.embedded:
        yield from part.rows
        return
    base = posixpath.dirname(part.table.name) if settings.images is None else settings.images
    for row in part.rows:
        name = _find(row.image, base, part.table.name, files)
        if name is None:
            found["missing_file"].append(f"{row.image or 'an empty cell'} in {part.table.name}")
        else:
            folders = map(split_named, PurePosixPath(name).parts[:-1])
            yield replace(row, image=files.members[name].name, split=row.split or next(filter(None, folders), None))


def _find(image: str, base: str, table: str, files: _Files) -> str | None:
    """The path of the file that a table calls `image`: below `base`, or where one path alone ends like that."""
    image, base = shown(image.replace("\\", "/")), shown(base)
    wanted = posixpath.normpath(posixpath.join(base, image))
    if image.startswith("/") or "://" in image or wanted.startswith("../"):
        raise UserError(
            f"data.path: {table} names {image}, which is outside data.path: put the images inside, where DVC versions "
            "them, and write their paths from the table's folder or from data.images."
        )
    if wanted in files.members and image:
        return wanted
    named = files.images.get(PurePosixPath(image).name, [])
    exact = [name for name in named if posixpath.splitext(name)[0] == wanted]
    ending = f"/{posixpath.normpath(image)}"
    endings = [name for name in named if f"/{name}".endswith((ending, f"{ending}{PurePosixPath(name).suffix}"))]
    options = sorted(exact or endings)
    if len(options) > 1:
        raise UserError(
            f"data.path: {table} names {image}, which may be {options[0]} or {options[1]}: write the path in the "
            "table, or name the images' folder in data.images."
        )
    return options[0] if options else None


def _consistent(rows: Sequence[Row], found: _Found) -> list[Row]:
    """One row for each image, without those that have no label or whose rows contradict each other."""
    by_image: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_image[row.image].append(row)
    kept = []
    for image, same in by_image.items():
        said = sorted({(row.label, row.split or "", row.group or "") for row in same})
        if len(said) > 1:
            sides = [" in ".join(filter(None, of_row)) or "no label" for of_row in said]
            found["contradiction"].append(f"{image}: {' and '.join(sides)}")
        elif not same[0].label:
            found["no_label"].append(image)
        else:
            kept.append(same[0])
            if len(same) > 1:
                found["repeated_row"].append(image)
    return kept


def _class_names(rows: Sequence[Row], labelled: Sequence[Labelled], settings: DataSettings) -> dict[str, str]:
    """The name of the class that each label stands for, in the order of numbers, or else of code points."""
    names = {str(label): name for label, name in settings.class_names.items()}
    for part in labelled if not names else ():
        if names and part.class_names != names:
            raise UserError(f"data.path: {part.table.name} names other classes than {labelled[0].table.name}.")
        names = part.class_names
    labels = {row.label for row in rows}
    numbers = all(re.fullmatch(r"-?\d+", label) for label in labels)
    unnamed = sorted(labels.difference(names)) if names else []
    if unnamed:
        raise UserError(f"data.class_names: has no name for the label {unnamed[0]!r}: add `{unnamed[0]}: NAME`.")
    return {label: names.get(label, label) for label in sorted(labels, key=int if numbers else str)}


def _splits(rows: Sequence[Row], settings: DataSettings) -> list[int]:
    """The position in PREPARED_SPLITS of each row's split: train for all where no row has one."""
    without = [row.image for row in rows if row.split is None]
    if 0 < len(without) < len(rows):
        raise UserError(
            f"data.path: {len(without):,} of the {len(rows):,} images listed in {settings.path} have no split (the "
            f"first: {without[0]}): remove the tables that are not meant, or give each row its split in a column split."
        )
    splits = [PREPARED_SPLITS.index(row.split or "train") for row in rows]
    if 0 not in splits:
        raise UserError(
            f"data.path: no image listed in {settings.path} is for train: name the split in a column split."
        )
    return splits
