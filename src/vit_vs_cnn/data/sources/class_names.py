"""The classes that class folders stand for: names that differ only in case or Unicode form may be one class."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import SplitName
from vit_vs_cnn.data.sources.folder_tree import Parts, listed, shown


@dataclass(frozen=True)
class ClassFolder:
    """A class folder: its name, the split and the folder that it lies in."""

    split: SplitName
    parent: Parts
    name: str


def classes_of(folders: Collection[ClassFolder], path: Path) -> tuple[tuple[str, ...], dict[str, str], list[str]]:
    """The classes of train in their order, the class of each folder name, and sentences on names that are alike.

    The order is that of the names on disk by code points, as in torchvision's ImageFolder. Raises UserError where two
    neighbours look the same, or a class of another split is not in train.
    """
    trained = {folder.name for folder in folders if folder.split == "train"}
    alike: dict[str, dict[Parts, set[str]]] = defaultdict(lambda: defaultdict(set))
    for folder in folders:
        alike[shown(folder.name).casefold()][folder.parent].add(folder.name)
    class_of: dict[str, str] = {}
    joined, apart = [], []
    for neighbours in alike.values():
        names = sorted(set().union(*neighbours.values()))
        if all(len(side) == 1 for side in neighbours.values()):
            chosen = shown(min(trained.intersection(names), default=names[0]))
            class_of |= dict.fromkeys(names, chosen)
            joined += [f"{chosen} ({', '.join(map(_spelt, names))})"] if len(names) > 1 else []
        else:
            _refuse_same_looks(neighbours, path)
            class_of |= {name: shown(name) for name in names}
            apart += [" and ".join(sorted({class_of[name] for name in names}))]
    classes = tuple(dict.fromkeys(class_of[name] for name in sorted(trained)))
    for folder in sorted(folders, key=lambda folder: (folder.split, folder.name)):
        if class_of[folder.name] not in classes:
            raise UserError(_not_in_train(folder, class_of[folder.name], classes, path))
    notes = []
    if joined:
        notes.append(
            f"Class folders that differ only in case or Unicode form are one class: {listed(sorted(joined), '')}."
        )
    if apart:
        notes.append(f"Classes that differ only in case stay different classes: {listed(sorted(apart), '')}.")
    return classes, class_of, notes


def _refuse_same_looks(neighbours: Mapping[Parts, set[str]], path: Path) -> None:
    for parent, names in neighbours.items():
        if len({shown(name) for name in names}) < len(names):
            raise UserError(
                f"data.path: {path} has two folders {shown(min(names))!r} in {'/'.join(parent) or 'its top folder'}, "
                "in two forms of Unicode: put their images into one of them."
            )


def _not_in_train(folder: ClassFolder, name: str, classes: Iterable[str], path: Path) -> str:
    alike = [other for other in classes if other.casefold() == name.casefold()]
    case = f" (which has {' and '.join(alike)}, in another case)" if alike else ""
    return (
        f"data.path: {path} has the class {name!r} in {folder.split}/ but not in train/{case}: "
        "add its training images or remove it."
    )


def _spelt(name: str) -> str:
    return name if name == shown(name) else f"{shown(name)} in decomposed form"
