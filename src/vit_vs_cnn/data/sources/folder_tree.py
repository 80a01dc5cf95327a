"""The tree of an image folder: which folders hold images, and how many."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

Parts = tuple[str, ...]

_MOST_NAMED = 5


@dataclass(eq=False)
class Folder:
    """A folder at `path` within the data; `images` and `others` count the files in it at any depth."""

    path: Parts = ()
    folders: "dict[str, Folder]" = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    images: int = 0
    others: int = 0

    @property
    def place(self) -> str:
        """The path for people."""
        return shown("/".join(self.path)) + "/" if self.path else "the top folder"

    @property
    def key(self) -> str:
        """The name as it is compared: without case and form of its characters."""
        return shown(self.name).casefold()

    @property
    def name(self) -> str:
        """The last part of the path, empty for the data as a whole."""
        return self.path[-1] if self.path else ""

    @property
    def filled(self) -> "list[Folder]":
        """The folders directly in this one that hold images, by name."""
        return [folder for _, folder in sorted(self.folders.items()) if folder.images]

    @property
    def is_flat(self) -> bool:
        """Whether no folder in this one holds images."""
        return not self.filled

    @property
    def is_nested(self) -> bool:
        """Whether all images are in folders of this one, and in more than one of them."""
        return not self.files and len(self.filled) > 1

    def at(self, path: Iterable[str]) -> "Folder | None":
        """The folder at a path within this one, whatever the form of its Unicode characters."""
        found: Folder | None = self
        for part in path:
            matches = [folder for name, folder in found.folders.items() if shown(name) == shown(part)] if found else []
            found = matches[0] if len(matches) == 1 else None
        return found

    def at_level(self, level: int) -> "list[Folder]":
        """All folders so many levels below this one."""
        folders = [self]
        for _ in range(level):
            folders = [inner for folder in folders for inner in folder.folders.values()]
        return folders

    def below(self) -> "Iterator[Folder]":
        """All folders with images in this one, at any depth."""
        for folder in self.filled:
            yield folder
            yield from folder.below()

    def beside(self, kept: "Sequence[Folder]") -> "Iterator[Folder]":
        """The topmost folders in this one that are in none of `kept` and hold none of them."""
        for _, folder in sorted(self.folders.items()) if self not in kept else ():
            if any(each.path[: len(folder.path)] == folder.path and each is not folder for each in kept):
                yield from folder.beside(kept)
            elif folder not in kept:
                yield folder

    def image_paths(self) -> set[Parts]:
        """The paths of all images within this folder."""
        return {(*folder.path[len(self.path) :], name) for folder in (self, *self.below()) for name in folder.files}


def folder_tree(images: Iterable[Parts], others: Iterable[Parts], folders: Iterable[Parts]) -> Folder:
    """Arrange the paths of images, of other files and of folders as a tree."""
    root = Folder()
    for *path, name in images:
        for folder in _descend(root, path):
            folder.images += 1
        folder.files.append(name)
    for *path, _ in others:
        for folder in _descend(root, path):
            folder.others += 1
    for parts in folders:
        for _ in _descend(root, parts):
            pass
    return root


def _descend(folder: Folder, path: Sequence[str]) -> Iterator[Folder]:
    yield folder
    for part in path:
        if part not in folder.folders:
            folder.folders[part] = Folder((*folder.path, part))
        folder = folder.folders[part]
        yield folder


def shown(name: str) -> str:
    """A name as it is compared and shown, in Unicode's form NFC: systems store the same letters in two forms."""
    return unicodedata.normalize("NFC", name)


def listed(names: Iterable[str], mark: str = "/") -> str:
    """The first names, each with `mark` after it, and how many more there are."""
    known = [f"{shown(name)}{mark}" for name in names]
    more = f" and {len(known) - _MOST_NAMED:,} more" if len(known) > _MOST_NAMED else ""
    return ", ".join(known[:_MOST_NAMED]) + more
