"""Any data set of torchvision that gives each image one class, in its official splits."""

import difflib
import inspect
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, SplitName
from vit_vs_cnn.data.sources.cifar10 import CifarArchive, open_cifar
from vit_vs_cnn.data.sources.download import download_errors, one_download
from vit_vs_cnn.data.sources.source import RawImage, Source

# What torchvision calls each split; the first that a data set has is taken.
_SPLITS: dict[SplitName, tuple[str, ...]] = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}
# Built like the others, but with boxes, captions, attributes or pairs in place of one class.
_OTHER_TASKS = frozenset({"CelebA", "Kitti", "LFWPairs", "SBU", "VOCDetection", "VOCSegmentation", "WIDERFace"})

_Parts = dict[SplitName, Any]


def open_torchvision(path: Path, dataset: str | None) -> Source:
    """Open torchvision's `dataset` in the folder `path`, downloaded to there if it is missing.

    Missing splits are carved from train as for folders. Raises UserError if torchvision has no data set of that name
    with one class for each image, TransientError if it cannot be downloaded.
    """
    from torchvision.datasets import CIFAR10

    if not dataset:
        raise UserError("data.dataset: is missing: name a data set of torchvision, for example `dataset: EuroSAT`.")
    kind = _dataset_class(dataset)
    if path.is_file():
        raise UserError(f"data.path: {path} is a file: name a folder for what torchvision downloads.")
    if issubclass(kind, CIFAR10):
        # torchvision would unpickle the archive without restrictions.
        train, test = (tuple(name for name, _ in files) for files in (kind.train_list, kind.test_list))
        meta = kind.meta["filename"], kind.meta["key"]
        return open_cifar(path / kind.filename, CifarArchive(dataset, kind.url, kind.tgz_md5, train, test, *meta))
    root, parts = _opened(kind, path)
    names, labels, splits = [], [], []
    for split, part in parts.items():
        for index in range(len(part)):
            image, label = part[index]
            if isinstance(label, bool) or not isinstance(label, int | np.integer):
                raise UserError(f"data.dataset: {dataset} does not give each image one class.")
            is_file = isinstance(image, Path)
            names.append(os.path.relpath(image, root) if is_file else f"{split}/{index:05d}")
            labels.append(int(label))
            splits.append(PREPARED_SPLITS.index(split))
    classes, encoded = _classes(parts["train"], np.array(labels, np.int64))
    return Source(
        description=f"{dataset}, through torchvision ({', '.join(parts)})",
        classes=classes,
        names=tuple(names),
        labels=encoded,
        splits=np.array(splits, np.int64),
        missing=tuple(split for split in ("test", "val") if split not in parts),
        read=lambda: enumerate(_images(parts)),
    )


def _dataset_class(name: str) -> Any:
    """The class of that name. Raises UserError if there is none, or none that gives each image one class."""
    from torchvision import datasets

    known = {other: getattr(datasets, other) for other in datasets.__all__ if other not in _OTHER_TASKS}
    usable = {other: kind for other, kind in known.items() if inspect.isclass(kind) and _is_usable(kind)}
    if name not in usable:
        by_lower = {other.lower(): other for other in usable}
        near = [by_lower[other] for other in difflib.get_close_matches(name.lower(), by_lower, n=3)]
        raise UserError(
            f"data.dataset: {name} is no data set of torchvision with one class for each image and a download: "
            f"{'did you mean ' + ', '.join(near) + '?' if near else 'there are ' + ', '.join(sorted(usable)) + '.'}"
        )
    return usable[name]


def _is_usable(kind: type) -> bool:
    """Whether a class downloads, needs nothing but a folder, and has a target beside each image."""
    own = inspect.signature(kind).parameters.values()
    required = {part.name for part in own if part.default is part.empty and part.kind is part.POSITIONAL_OR_KEYWORD}
    targets = any(part.name == "target_transform" or part.kind is part.VAR_KEYWORD for part in own)
    return targets and required == {"root"} and "download" in _parameters(kind)


def _parameters(kind: type) -> set[str]:
    """The names of the arguments that a class takes, with those that it passes on to its bases."""
    return {name for base in inspect.getmro(kind) for name in inspect.signature(base.__init__).parameters}  # type: ignore[misc]


def _opened(kind: Any, path: Path) -> tuple[Path, _Parts]:
    """The splits, from the folder itself, from an earlier download in it, or downloaded: whole or not at all."""
    target, draft = path / kind.__name__, path / f"{kind.__name__}.part"
    remedy = "try again, or unpack the files there as torchvision lays them out"
    with one_download(target):
        for root in (path, target):
            try:
                return root, _splits(kind, root, download=False)
            except (RuntimeError, OSError):
                # torchvision's way to say that the files are not there.
                continue
        if target.exists():
            raise UserError(f"{target}: is not all of {kind.__name__}: remove it to have it downloaded again.")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            with download_errors(f"data.path: {path} lacks {kind.__name__} and the download failed", remedy):
                draft.mkdir(parents=True)
                _splits(kind, draft, download=True)
                draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target, _splits(kind, target, download=False)


def _splits(kind: Any, root: Path, *, download: bool) -> _Parts:
    """The official splits that the data set has; all of it is train where it has none. Raises as torchvision does."""
    parameters = _parameters(kind)
    # Names of files instead of decoded images: the project decodes them itself.
    options: dict[str, Any] = {"download": download} | ({"loader": Path} if "loader" in parameters else {})
    if "train" in parameters:
        return {"train": kind(root, train=True, **options), "test": kind(root, train=False, **options)}
    if "split" not in parameters:
        return {"train": kind(root, **options)}
    parts: _Parts = {}
    for split, names in _SPLITS.items():
        part = _first_split(kind, root, names, options)
        if part is not None:
            parts[split] = part
        elif split == "train":
            raise UserError(f"data.dataset: {kind.__name__} has no split train in torchvision.")
    return parts


def _first_split(kind: Any, root: Path, names: tuple[str, ...], options: dict[str, Any]) -> Any:
    """The first of the splits that the data set has, None where it has none of them."""
    for name in names:
        try:
            return kind(root, split=name, **options)
        except ValueError as error:
            # So begins torchvision's own sentence on a split that it does not know.
            if not str(error).startswith("Unknown value"):
                raise UserError(f"data.dataset: {kind.__name__}: {error}") from None
    return None


def _classes(train: Any, labels: NDArray[np.int64]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The names of the classes, or their numbers where torchvision has none, and the labels int64 (N,) as positions."""
    names = getattr(train, "classes", None) or getattr(train, "categories", None)
    numbers = getattr(train, "class_to_idx", None)
    if not names and numbers:
        names = sorted(numbers, key=numbers.get)
    if names:
        return tuple(name if isinstance(name, str) else ", ".join(name) for name in names), labels
    found, positions = np.unique(labels, return_inverse=True)
    return tuple(str(number) for number in found), positions.astype(np.int64)


def _images(parts: _Parts) -> Iterator[RawImage]:
    for part in parts.values():
        for index in range(len(part)):
            image = part[index][0]
            yield image.read_bytes() if isinstance(image, Path) else np.asarray(image.convert("RGB"))
