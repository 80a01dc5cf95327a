"""Images in folders, one for each class, with or without split folders above them; layout.py finds which is which."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vit_vs_cnn.config.data import SplitFolders
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.archive import Member, Store, open_store
from vit_vs_cnn.data.dataset import PREPARED_SPLITS
from vit_vs_cnn.data.file_kinds import has_image_suffix, is_clutter, is_image_head
from vit_vs_cnn.data.sources.class_names import ClassFolder, classes_of
from vit_vs_cnn.data.sources.folder_tree import Parts, folder_tree, listed, shown
from vit_vs_cnn.data.sources.layout import EXPECTED, Layout, read_layout
from vit_vs_cnn.data.sources.source import Source, Unreadable
from vit_vs_cnn.data.sources.table_files import is_table

_MOST_LEVELS = 100


@dataclass(frozen=True)
class _Listing:
    """What a folder or archive holds: files that may be images, other files, and folders, by their paths."""

    images: dict[Parts, Member]
    others: dict[Parts, Member]
    folders: list[Parts]
    passed_over: Counter[str]


def open_folder(
    path: Path,
    splits: SplitFolders | None = None,
    class_level: int | None = None,
    on_bad: Literal["fail", "skip"] = "fail",
    store: Store | None = None,
) -> Source:
    """Open the images in the folder, tar or zip at `path`, or in its `store` if that is open, sorted by their paths.

    `splits` and `class_level` decide where the names of the folders do not. Files of systems and files that are no
    images are passed over, and those outside the class folders are reported as stray. Raises UserError if the layout
    can be read in several ways or in none, there are fewer than two classes, or a class or split has no images; `skip`
    leaves the latter out.
    """
    store = store or open_store(path)
    listing = _list(path, store)
    tree = folder_tree(listing.images, listing.others, listing.folders)
    layout = read_layout(tree, path, splits, class_level, on_bad)
    files = listing.images | listing.others
    folders = {parts: _class_folder(layout, parts) for parts in {parts[:-1] for parts in files}.union(listing.folders)}
    class_of = {parts: folder for parts in listing.images if (folder := folders[parts[:-1]])}
    not_images = [parts for parts in listing.others if folders[parts[:-1]]]
    notes = _empty_classes(path, set(class_of.values()), set(filter(None, folders.values())), on_bad)
    classes, names, names_alike = classes_of(set(class_of.values()), path)
    if len(classes) < 2:
        raise UserError(
            f"data.path: {path} holds only one class ({', '.join(classes)}), and two at least are needed: "
            f"expected {EXPECTED}; classes one folder deeper need data.class_level: 2, a table of labels "
            "data.source: table."
        )
    ordered = sorted(class_of, key=lambda parts: (class_of[parts].split, parts))
    images = [parts for parts in ordered if not listing.images[parts].problem]
    position = {listing.images[parts].name: index for index, parts in enumerate(images)}
    label_of = {name: classes.index(class_name) for name, class_name in names.items()}
    stray = [parts for parts in files.keys() - class_of.keys() - set(not_images) if not layout.drops(parts)]
    tables = sorted("/".join(parts) for parts in stray if is_table(parts[-1]))
    if splits is None and class_level is None:
        _refuse_parts(path, classes, tables)
    if tables:
        notes.append(f"Tables are not read ({listed(tables, '')}): if one has the labels, set data.source: table.")

    def read() -> Iterator[tuple[int, bytes]]:
        for name, content in store.read(position):
            yield position[name], content

    return Source(
        description=f"image folder {path.name}",
        classes=classes,
        names=tuple(position),
        labels=np.array([label_of[class_of[parts].name] for parts in images], np.int64),
        splits=np.array([PREPARED_SPLITS.index(class_of[parts].split) for parts in images], np.int64),
        missing=tuple(split for split in ("test", "val") if split not in layout.splits),
        read=read,
        unreadable=tuple(
            Unreadable(listing.images[parts].name, problem)
            for parts in ordered
            if (problem := listing.images[parts].problem)
        ),
        stray=tuple(files[parts].name for parts in sorted(stray)),
        notes=(*layout.notes, *names_alike, *notes, *_passed_over(listing, not_images)),
    )


def _list(path: Path, store: Store) -> _Listing:
    """What is in the store.

    Raises UserError for a name that is none or not UTF-8, a file that is there twice, and folders without end.
    """
    files: dict[Parts, Member] = {}
    folders, clutter = [], set()
    for member in store.members:
        parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
        hidden = next((depth for depth, part in enumerate(parts, start=1) if is_clutter(part)), None)
        if hidden:
            clutter.add(parts[:hidden])
            continue
        try:
            member.name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{path}: the file name {member.name!r} is not UTF-8: rename the file.") from None
        if len(parts) > _MOST_LEVELS:
            raise UserError(f"{path}: {'/'.join(parts[:3])}/… is more than {_MOST_LEVELS} folders deep: pack fewer.")
        if member.is_folder:
            folders.append(parts)
        elif not parts:
            raise UserError(f"{path}: holds a file without a name ({member.name!r}): pack the archive again.")
        elif parts in files:
            raise UserError(f"{path}: holds {'/'.join(parts)} more than once: pack the archive again.")
        else:
            files[parts] = member
    odd = {
        member.name: parts
        for parts, member in files.items()
        if not member.problem and not has_image_suffix(member.name)
    }
    others = {odd[name] for name, head in store.heads(odd.keys()).items() if not is_image_head(head)}
    return _Listing(
        images={parts: member for parts, member in files.items() if parts not in others},
        others={parts: member for parts, member in files.items() if parts in others},
        folders=folders,
        passed_over=Counter(parts[-1] for parts in clutter),
    )


def _class_folder(layout: Layout, folder: Parts) -> ClassFolder | None:
    """The class folder that a folder is or lies in; None outside of them."""
    if layout.drops(folder):
        return None
    for split, root in layout.splits.items():
        level = len(root.path) + layout.class_level
        if folder[: len(root.path)] == root.path and len(folder) >= level:
            return ClassFolder(split, folder[: level - 1], folder[level - 1])
    return None


def _empty_classes(
    path: Path, filled: Collection[ClassFolder], folders: Collection[ClassFolder], on_bad: Literal["fail", "skip"]
) -> list[str]:
    """Say which classes have no images. Raises UserError where they are not to be skipped."""
    known = {shown(folder.name).casefold() for folder in filled}
    names = sorted({folder.name for folder in folders if shown(folder.name).casefold() not in known})
    if not names:
        return []
    if on_bad == "fail":
        raise UserError(
            f"data.path: {path} has {len(names):,} class folders without images ({listed(names, '')}): "
            "fill or remove them, or set data.on_bad to skip, or name the folder that has the classes, "
            "`data.splits: {train: FOLDER}`."
        )
    return [f"{len(names):,} class folders hold no images and are skipped: {listed(names, '')}."]


def _refuse_parts(path: Path, classes: Sequence[str], tables: Sequence[str]) -> None:
    """Raise UserError if folders that are only numbered stand beside a table, as `part_1` and `part_2` in HAM10000."""
    stems = {re.sub(r"\d+$", "", name) for name in classes}
    if tables and len(stems) == 1 and "" not in stems:
        raise UserError(
            f"data.path: {path} has {listed(tables, '')} beside folders that differ by a number alone "
            f"({listed(classes)}): if a table has the labels, set data.source: table; if the folders are the "
            "classes, set data.class_level: 1."
        )


def _passed_over(listing: _Listing, not_images: Sequence[Parts]) -> list[str]:
    notes = []
    if not_images:
        names = listed(("/".join(parts) for parts in sorted(not_images)), "")
        notes.append(f"{len(not_images):,} files in class folders are no images and are passed over: {names}.")
    if listing.passed_over:
        by_count = sorted(listing.passed_over.items(), key=lambda item: (-item[1], item[0]))
        names = listed((f"{name} ({count:,})" for name, count in by_count), "")
        notes.append(f"{listing.passed_over.total():,} hidden files or folders of systems are passed over: {names}.")
    return notes
