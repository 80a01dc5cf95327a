"""Images in ImageFolder layout: `train/<class>/…` with optional `val/` and `test/`, or `<class>/…`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.archive import Member, open_store
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, SplitName
from vit_vs_cnn.data.sources.source import Source, Unreadable

# What systems leave in folders by themselves, beside the hidden files.
_CLUTTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_LAYOUT = "train/<class>/… with optional val/ and test/, or <class>/…"


@dataclass(frozen=True)
class _Placed:
    """A member and its path within the layout, without the folders around it."""

    member: Member
    parts: tuple[str, ...]

    @property
    def folders(self) -> tuple[str, ...]:
        return self.parts if self.member.is_folder else self.parts[:-1]


def open_folder(path: Path) -> Source:
    """The images in the folder, tar or zip at `path`, sorted by their paths.

    Hidden files are passed over; files outside the class folders are reported as stray. Raises UserError if the
    layout is none of the two, a class folder is empty, or there are fewer than two classes.
    """
    store = open_store(path)
    placed = _unwrapped(_visible(path, store.members))
    tops = {entry.folders[0] for entry in placed if entry.folders}
    given = _given_splits(path, tops)
    if not given:
        placed = [_Placed(entry.member, ("train", *entry.parts)) for entry in placed]
    placed.sort(key=lambda entry: entry.parts)
    classes = _classes(path, placed)

    files = [entry for entry in placed if not entry.member.is_folder]
    in_class = [entry for entry in files if len(entry.folders) >= 2]
    images = [entry for entry in in_class if not entry.member.problem]
    _refuse_gaps(path, classes, given or ("train",), in_class)
    position = {entry.member.name: index for index, entry in enumerate(images)}
    label_of = {name: label for label, name in enumerate(classes)}
    code_of: dict[str, int] = {split: code for code, split in enumerate(PREPARED_SPLITS)}

    def read() -> Iterator[tuple[int, bytes]]:
        for name, content in store.read(position):
            yield position[name], content

    return Source(
        description=f"image folder {path.name}",
        classes=classes,
        names=tuple(position),
        labels=np.array([label_of[entry.parts[1]] for entry in images], np.int64),
        splits=np.array([code_of[entry.parts[0]] for entry in images], np.int64),
        missing=tuple(split for split in ("test", "val") if split not in given),
        read=read,
        unreadable=tuple(
            Unreadable(entry.member.name, entry.member.problem) for entry in in_class if entry.member.problem
        ),
        stray=tuple(entry.member.name for entry in files if len(entry.folders) < 2),
    )


def _visible(path: Path, members: Sequence[Member]) -> list[_Placed]:
    placed = []
    for member in members:
        try:
            member.name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{path}: the file name {member.name!r} is not UTF-8: rename the file.") from None
        parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
        if parts and not any(part.startswith(".") or part in _CLUTTER for part in parts):
            placed.append(_Placed(member, parts))
    times = Counter(entry.parts for entry in placed if not entry.member.is_folder)
    twice = next((parts for parts, count in times.items() if count > 1), None)
    if twice:
        raise UserError(f"{path}: holds {'/'.join(twice)} more than once: pack the archive again.")
    return placed


def _unwrapped(placed: Sequence[_Placed]) -> list[_Placed]:
    """Without the single folders that archives often put around everything."""
    entries = list(placed)
    while True:
        tops = {entry.folders[0] for entry in entries if entry.folders}
        wraps_folders = any(len(entry.folders) >= 2 for entry in entries)
        if len(tops) != 1 or tops & set(PREPARED_SPLITS) or not wraps_folders:
            return entries
        entries = [
            _Placed(entry.member, entry.parts[1:] if entry.folders else entry.parts)
            for entry in entries
            if len(entry.parts) > 1 or not entry.member.is_folder
        ]


def _given_splits(path: Path, tops: set[str]) -> tuple[SplitName, ...]:
    given = tuple(split for split in PREPARED_SPLITS if split in tops)
    if not tops:
        raise UserError(f"data.path: {path} holds no image folders: expected {_LAYOUT}.")
    if given and "train" not in given:
        raise UserError(f"data.path: {path} has {given[0]}/ but no train/: expected {_LAYOUT}.")
    unknown = sorted(tops.difference(PREPARED_SPLITS))
    if given and unknown:
        raise UserError(f"data.path: {path} has {unknown[0]}/ beside train/: rename or remove it; expected {_LAYOUT}.")
    return given


def _classes(path: Path, placed: Sequence[_Placed]) -> tuple[str, ...]:
    folders = {entry.folders[:2] for entry in placed if len(entry.folders) >= 2}
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
    return tuple(classes)


def _refuse_gaps(path: Path, classes: Sequence[str], splits: Sequence[SplitName], in_class: Sequence[_Placed]) -> None:
    """Empty class folders in train, and splits without any file."""
    filled = {entry.parts[:2] for entry in in_class}
    empty = [name for name in classes if ("train", name) not in filled]
    if empty:
        raise UserError(
            f"data.path: {path} has {len(empty)} class folders without images ({', '.join(empty[:5])}): "
            "fill or remove them."
        )
    for split in splits:
        if not any(top == split for top, _ in filled):
            raise UserError(f"data.path: {path} has {split}/ without images: fill or remove it.")
