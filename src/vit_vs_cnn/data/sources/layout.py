"""How an image folder is to be read: which folders are splits, which are classes, and what is neither."""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal, NoReturn

from vit_vs_cnn.config.data import SplitFolders
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, SplitName
from vit_vs_cnn.data.sources.folder_tree import Folder, Parts, listed
from vit_vs_cnn.data.sources.split_names import named_splits, read_split_name

EXPECTED = "train/<class>/… with optional val/ and test/, or <class>/…"
_UNLABELLED = "its images are in no class folders, so their classes are unknown"


@dataclass(frozen=True)
class Layout:
    """The folder of each split, the level below it whose folders are the classes, and the folders skipped.

    `notes` say to people how that was found.
    """

    splits: dict[SplitName, Folder]
    class_level: int
    left_out: frozenset[Parts]
    notes: tuple[str, ...]

    def drops(self, path: Parts) -> bool:
        """Whether a file or folder lies in a folder that is skipped."""
        return bool(self.left_out) and any(path[:depth] in self.left_out for depth in range(1, len(path) + 1))


def read_layout(
    data: Folder, path: Path, splits: SplitFolders | None, class_level: int | None, on_bad: Literal["fail", "skip"]
) -> Layout:
    """Read the layout of the folder or archive at `path` from its tree.

    What `splits` and `class_level` say is taken as it is; `on_bad` says what becomes of a split without images. Raises
    UserError, with the setting that decides, wherever the folders can be read in more than one way, or in none.
    """
    if not data.folders:
        raise UserError(f"data.path: {path} holds no image folders: expected {EXPECTED}.")
    if not data.images:
        raise UserError(f"data.path: {path} has {listed(sorted(data.folders))} without images: fill or remove them.")
    return _Reading(data, path).layout(splits, class_level, on_bad)


class _Reading:
    def __init__(self, data: Folder, path: Path) -> None:
        self._data = data
        self._path = path
        self._notes: list[str] = []
        self._left_out: list[Folder] = []

    def layout(self, wanted: SplitFolders | None, class_level: int | None, on_bad: Literal["fail", "skip"]) -> Layout:
        folders = self._named(wanted) if wanted else self._found()
        train = self._without_copies(self._unwrapped(folders["train"]))
        if train.is_flat and train.images:
            raise UserError(f"data.path: {self._path} holds no class folders in {train.place}: expected {EXPECTED}.")
        level = class_level or self._class_level(train)
        splits: dict[SplitName, Folder] = {}
        for split, folder in sorted(folders.items(), key=lambda item: PREPARED_SPLITS.index(item[0])):
            inner = train if split == "train" else self._unwrapped_like(folder, train)
            if not inner.images and split != "train" and on_bad == "skip":
                self._leave_out(folder, "it holds no images")
            elif not inner.images:
                raise UserError(f"data.path: {self._path} has {folder.place} without images: fill or remove it.")
            elif inner.is_flat:
                self._leave_out(inner, _UNLABELLED)
            elif not any(each.images for each in inner.at_level(level)):
                raise UserError(
                    f"data.class_level: {self._path} has no folders with images at level {level} of {inner.place}."
                )
            else:
                splits[split] = inner
        self._notes.insert(0, _layout_note(splits))
        return Layout(splits, level, frozenset(folder.path for folder in self._left_out), tuple(self._notes))

    def _named(self, wanted: SplitFolders) -> dict[SplitName, Folder]:
        """The folders that the settings name. Raises UserError where one is missing or lies in another."""
        folders: dict[SplitName, Folder] = {}
        for split in PREPARED_SPLITS:
            place = getattr(wanted, split)
            if place is None:
                continue
            parts = [part for part in place.split("/") if part not in ("", ".")]
            folder = self._data.at(parts)
            if folder is None:
                parent = self._data.at(parts[:-1]) or self._data
                raise UserError(
                    f"data.splits.{split}: {self._path} has no folder {place}: "
                    f"{parent.place} holds {listed(sorted(parent.folders)) or 'no folders'}."
                )
            folders[split] = folder
        for split, folder in folders.items():
            for other, inner in folders.items():
                if split != other and inner.path[: len(folder.path)] == folder.path:
                    raise UserError(
                        f"data.splits: {other} ({inner.place}) lies in {split} ({folder.place}): "
                        "name folders that share nothing."
                    )
        rest = self._data.images - sum(folder.images for folder in folders.values())
        self._left_out += self._data.beside([*folders.values()])
        if rest:
            self._notes.append(f"{rest:,} images outside the folders in data.splits are skipped.")
        return folders

    def _found(self) -> dict[SplitName, Folder]:
        """The split folders by their names; the whole is train where none of them names a split."""
        top = self._without_copies(self._unwrapped(self._data, is_top=True))
        tops = {name: folder for name, folder in top.folders.items() if folder not in self._left_out}
        named = named_splits(tops)
        if not named:
            self._refuse_half_named(tops)
            return {"train": top}
        folders: dict[SplitName, Folder] = {}
        for name, split in sorted(named.items()):
            if split in folders:
                self._refuse(tops, f"has both {listed([folders[split].name, name])} for {split}")
            folders[split] = tops[name]
        if "train" not in folders:
            self._refuse(tops, f"has {listed(sorted(named)[:1])} but no train/")
        for name in sorted(tops.keys() - named.keys()):
            folder = self._unwrapped_like(tops[name], folders["train"])
            if not folder.images:
                self._leave_out(tops[name], "it holds no images")
            elif folder.is_flat and not folders["train"].is_flat:
                self._leave_out(tops[name], _UNLABELLED)
            else:
                self._refuse(tops, f"has {listed([name])} beside {listed(sorted(named))}")
        return folders

    def _unwrapped(self, folder: Folder, *, is_top: bool = False) -> Folder:
        """The folder within those that only wrap another one; of the top, also where files lie beside that."""
        while True:
            inner = [each for each in folder.folders.values() if each.images or not each.others]
            wraps = len(inner) == 1 and inner[0].folders and (is_top or not folder.files)
            # Beside a folder of labels only split folders tell that the other one is no class.
            wraps = wraps and (len(folder.folders) == 1 or "train" in named_splits(inner[0].folders).values())
            if not wraps or (is_top and named_splits([inner[0].name])):
                return folder
            for each in folder.beside(inner):
                self._leave_out(each, "it holds no images")
            folder = inner[0]

    def _unwrapped_like(self, folder: Folder, train: Folder) -> Folder:
        """The folder in which val or test has the class folders that train has."""
        classes = {each.key for each in train.folders.values()}
        while len(folder.folders) == 1 and not folder.files:
            (inner,) = folder.folders.values()
            wraps = (
                inner.name in (folder.name, train.name)
                or named_splits([inner.name])
                or classes.intersection(each.key for each in inner.folders.values())
            )
            if inner.key in classes or not wraps:
                return folder
            folder = inner
        return folder

    def _without_copies(self, top: Folder) -> Folder:
        """Leave out the folders that hold their neighbours once more. Raises UserError where the files differ."""
        for folder in top.filled:
            twice = [name for name in folder.folders if name in top.folders and name != folder.name]
            if len(twice) < 2:
                continue
            copied = folder.image_paths()
            if not copied <= top.image_paths():
                raise UserError(
                    f"data.path: {self._path} has {listed(sorted(twice))} twice, in {folder.place} and beside it, with "
                    f"different files: remove one of them, or set data.splits: {{train: {_yaml(folder)}}}."
                )
            self._leave_out(folder, f"its {len(copied):,} images are a copy of those beside it")
        return top

    def _class_level(self, train: Folder) -> int:
        """The first level. Raises UserError where the same folders stand below several folders of that level."""
        tops = [folder for folder in train.filled if folder not in self._left_out]
        below = [{folder.key: folder.name for folder in top.below()} for top in tops]
        times = Counter(key for keys in below for key in keys)
        repeated = {name for keys in below for key, name in keys.items() if times[key] > 1}
        if repeated and len(times) > 1:
            holders = [top for top, keys in zip(tops, below, strict=True) if any(times[key] > 1 for key in keys)]
            self._refuse_repeated(train, holders, repeated)
        nested = [top for top in tops if not top.is_flat]
        if nested:
            self._notes.append(
                f"{len(nested):,} class folders have sub-folders ({nested[0].place} has "
                f"{listed(sorted(each.name for each in nested[0].filled))}): the upper folder is the class; "
                "if the sub-folders are the classes, set data.class_level: 2."
            )
        return 1

    def _refuse_repeated(self, train: Folder, holders: Sequence[Folder], repeated: Collection[str]) -> NoReturn:
        """Raise UserError that shows which folders may be the classes where some stand below several others."""
        holders = sorted(holders, key=lambda folder: folder.name)
        names = listed(folder.name for folder in holders)
        found = f"data.path: {self._path} has the same folders ({listed(sorted(repeated), '')}) in each of {names}"
        if len(named_splits(repeated)) == len(repeated):
            raise UserError(
                f"{found}: put the splits above the classes (train/<class>/…), or set data.class_level: 1 to take the "
                "upper folders as classes and split their images anew."
            )
        readings = "; ".join(
            f"if the classes are {listed(classes, '')}, set data.class_level: {level}"
            for level, classes in _names_by_level(train).items()
        )
        raise UserError(
            f"{found}: {readings}; if {names} are splits, set data.splits, "
            f"for example {{train: {_yaml(holders[0])}, test: {_yaml(holders[1])}}}."
        )

    def _refuse_half_named(self, tops: Mapping[str, Folder]) -> None:
        """Raise UserError where all names have a split's word, or one has that holds folders and another holds none."""
        if len(tops) > 1 and all(map(read_split_name, tops)):
            self._refuse(tops, f"has {listed(sorted(tops))} and no folder that is clearly train/")
        flat = sorted(name for name, folder in tops.items() if folder.images and folder.is_flat)
        for name, folder in tops.items():
            if read_split_name(name) and folder.is_nested and flat:
                self._refuse(tops, f"has {listed([name])} with folders in it beside {listed(flat[:1])} without")

    def _refuse(self, tops: Mapping[str, Folder], found: str) -> NoReturn:
        """Raise UserError that shows both readings of the top folders, as splits and as classes."""
        if len(tops) == 1:
            (only,) = tops.values()
            raise UserError(f"data.path: {self._path} {found}: to split it, set data.splits: {{train: {_yaml(only)}}}.")
        guess: dict[SplitName, str] = {"train": "…"}
        for name, folder in sorted(tops.items(), reverse=True):
            if read := read_split_name(name):
                guess[read[0]] = _yaml(folder)
        pairs = ", ".join(f"{split}: {guess[split]}" for split in PREPARED_SPLITS if split in guess)
        raise UserError(
            f"data.path: {self._path} {found}: if these are splits, set data.splits: {{{pairs}}}; "
            f"if {listed(sorted(tops), '')} are classes, set data.splits: {{train: .}}."
        )

    def _leave_out(self, folder: Folder, reason: str) -> None:
        if folder not in self._left_out:
            self._left_out.append(folder)
            self._notes.append(f"{folder.place} is skipped: {reason}.")


def _layout_note(splits: Mapping[SplitName, Folder]) -> str:
    missing = [split for split in PREPARED_SPLITS if split not in splits]
    carved = f"; {' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} taken from train" if missing else ""
    if len(splits) == 1 and not (read_split_name(splits["train"].name)):
        inside = f" in {splits['train'].place}" if splits["train"].path else ""
        return f"Read as class folders{inside}, without split folders{carved}."
    places = ", ".join(f"{split} in {folder.place}" for split, folder in splits.items())
    return f"Read as split folders with class folders: {places}{carved}."


def _names_by_level(train: Folder) -> dict[int, list[str]]:
    """The names of the folders with images at each level where there are two at least."""
    levels: dict[int, list[str]] = {}
    for level in count(1):
        folders = [folder for folder in train.at_level(level) if folder.images]
        names = {folder.key: folder.name for folder in folders}
        if not names:
            return levels
        if len(names) > 1:
            levels[level] = sorted(names.values())
    raise AssertionError


def _yaml(folder: Folder) -> str:
    """The path of a folder as YAML's flow style takes it."""
    path = "/".join(folder.path)
    return path if re.fullmatch(r"[\w./][\w./ -]*(?<! )", path) else json.dumps(path, ensure_ascii=False)
