"""Images in ImageFolder layout: `train/<class>/…` with optional `val/` and `test/`, or `<class>/…`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.archive import Member, Store, open_store
from vit_vs_cnn.data.dataset import PREPARED_SPLITS
from vit_vs_cnn.data.sources.source import Source, Unreadable

# What systems create in folders, beside hidden files.
_CLUTTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_LAYOUT = "train/<class>/… with optional val/ and test/, or <class>/…"


@dataclass(frozen=True)
class _Entry:
    """A member of the store, and its path without the folders that wrap everything."""

    member: Member
    parts: tuple[str, ...]

    @property
    def folders(self) -> tuple[str, ...]:
        return self.parts if self.member.is_folder else self.parts[:-1]

    @property
    def in_class(self) -> bool:
        return len(self.folders) >= 2


def open_folder(path: Path, store: Store | None = None) -> Source:
    """Open the images in the folder, tar or zip at `path`, or in its `store` if that is open, sorted by their paths.

    Hidden files are ignored; files outside the class folders are reported as stray. Raises UserError if the layout is
    none of the two, a class folder is empty, or there are fewer than two classes.
    """
    store = store or open_store(path)
    entries = _in_splits(path, _unwrapped(_visible(path, store.members)))
    entries.sort(key=lambda entry: entry.parts)
    classes = _classes(path, entries)
    label_of = {name: label for label, name in enumerate(classes)}
    code_of: dict[str, int] = {split: code for code, split in enumerate(PREPARED_SPLITS)}
    files = [entry for entry in entries if not entry.member.is_folder]
    images = [entry for entry in files if entry.in_class and not entry.member.problem]
    position = {entry.member.name: index for index, entry in enumerate(images)}

    def read() -> Iterator[tuple[int, bytes]]:
        for name, content in store.read(position):
            yield position[name], content

    return Source(
        description=f"image folder {path.name}",
        classes=classes,
        names=tuple(position),
        labels=np.array([label_of[entry.parts[1]] for entry in images], np.int64),
        splits=np.array([code_of[entry.parts[0]] for entry in images], np.int64),
        missing=tuple(split for split in ("test", "val") if split not in _tops(entries)),
        read=read,
        unreadable=tuple(
            Unreadable(entry.member.name, entry.member.problem)
            for entry in files
            if entry.in_class and entry.member.problem
        ),
        stray=tuple(entry.member.name for entry in files if not entry.in_class),
    )


def _visible(path: Path, members: Sequence[Member]) -> list[_Entry]:
    entries = []
    for member in members:
        try:
            member.name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{path}: the file name {member.name!r} is not UTF-8: rename the file.") from None
        parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
        if parts and not any(part.startswith(".") or part in _CLUTTER for part in parts):
            entries.append(_Entry(member, parts))
    for parts, count in Counter(entry.parts for entry in entries if not entry.member.is_folder).items():
        if count > 1:
            raise UserError(f"{path}: holds {'/'.join(parts)} more than once: pack the archive again.")
    return entries


def _unwrapped(entries: list[_Entry]) -> list[_Entry]:
    """Without the single folders that archives often put around everything."""
    while True:
        tops = _tops(entries)
        if len(tops) != 1 or tops & set(PREPARED_SPLITS) or not any(entry.in_class for entry in entries):
            return entries
        entries = [
            _Entry(entry.member, entry.parts[1:] if entry.folders else entry.parts)
            for entry in entries
            if len(entry.parts) > 1 or not entry.member.is_folder
        ]


def _in_splits(path: Path, entries: list[_Entry]) -> list[_Entry]:
    """Below split folders; all of them below train where the store has none."""
    tops = _tops(entries)
    given = [split for split in PREPARED_SPLITS if split in tops]
    unknown = sorted(tops.difference(given))
    if not tops:
        raise UserError(f"data.path: {path} holds no image folders: expected {_LAYOUT}.")
    if not given:
        return [_Entry(entry.member, ("train", *entry.parts)) for entry in entries]
    if "train" not in given:
        raise UserError(f"data.path: {path} has {given[0]}/ but no train/: expected {_LAYOUT}.")
    if unknown:
        raise UserError(f"data.path: {path} has {unknown[0]}/ beside train/: rename or remove it; expected {_LAYOUT}.")
    return entries


def _classes(path: Path, entries: Sequence[_Entry]) -> tuple[str, ...]:
    """The classes of train. Raises UserError if there are fewer than two, or a class or a split has no files."""
    folders = {entry.folders[:2] for entry in entries if entry.in_class}
    filled = {entry.folders[:2] for entry in entries if entry.in_class and not entry.member.is_folder}
    classes = sorted(name for split, name in folders if split == "train")
    for split, name in sorted(folders):
        if name not in classes:
            raise UserError(
                f"data.path: {path} has the class {name!r} in {split}/ but not in train/: "
                "add its training images or remove it."
            )
    if len(classes) < 2:
        found = f"only one class ({classes[0]})" if classes else "no class folders"
        raise UserError(f"data.path: {path} holds {found}, and two at least are needed: expected {_LAYOUT}.")
    empty = [name for name in classes if ("train", name) not in filled]
    if empty:
        raise UserError(
            f"data.path: {path} has {len(empty)} class folders without images ({', '.join(empty[:5])}): "
            "fill or remove them."
        )
    for split in sorted(_tops(entries).difference(split for split, _ in filled)):
        raise UserError(f"data.path: {path} has {split}/ without images: fill or remove it.")
    return tuple(classes)


def _tops(entries: Sequence[_Entry]) -> set[str]:
    return {entry.folders[0] for entry in entries if entry.folders}
