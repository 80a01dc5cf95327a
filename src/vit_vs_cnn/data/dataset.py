"""The prepared data set on disk: one folder per split with memory-mappable arrays, and dataset.json."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from vit_vs_cnn.core.errors import UserError

SplitName = Literal["train", "val", "test"]
PREPARED_SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class SplitInfo(BaseModel):
    """Size, images per class (in the order of the classes) and content digest of one split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    counts: tuple[int, ...]
    digest: str


class DatasetInfo(BaseModel):
    """dataset.json: everything about the data that is not a pixel.

    `mean` and `std` are those of the training pixels per channel (RGB), on the scale 0 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    description: str
    classes: tuple[str, ...]
    image_size: int
    split_seed: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    splits: dict[SplitName, SplitInfo]
    digest: str


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, H, W, 3), memory-mapped; labels int64 (N,); names, the N file names or positions.

    `folder` is where they lie, if they lie there as they are.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the same files, in place of being sent the pixels."""
        if self.folder is not None:
            return _open_split, (self.folder,)
        return Split, (self.images, self.labels, self.names)


def write_split(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], names: Sequence[str]) -> str:
    """Write one split into `folder` and return its content digest (hex)."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels.astype(np.int64))
    (folder / "names.json").write_text(json.dumps(list(names), indent=0), encoding="utf-8")
    return digest_of_split(images, labels)


def digest_of_split(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """The content digest (hex) of a split's pixels and labels."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels, dtype=np.int64).data)
    return digest.hexdigest()


def read_split(prepared: Path, split: SplitName) -> Split:
    """Open one split of the folder `prepared`, its images memory-mapped.

    Raises UserError where it is missing.
    """
    folder = prepared / split
    if not (folder / "images.npy").is_file():
        raise UserError(f"{folder}: no prepared data here; run `dvc repro prepare` first.")
    return _open_split(folder)


def _open_split(folder: Path) -> Split:
    # allow_pickle stays False (numpy's default): an .npy file from outside cannot run code.
    return Split(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        labels=np.load(folder / "labels.npy"),
        names=tuple(json.loads((folder / "names.json").read_text(encoding="utf-8"))),
        folder=folder,
    )


def write_info(prepared: Path, info: DatasetInfo) -> None:
    """Write dataset.json."""
    (prepared / "dataset.json").write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_info(prepared: Path) -> DatasetInfo:
    """Read dataset.json. Raises UserError where it is missing or not of this version."""
    path = prepared / "dataset.json"
    try:
        return DatasetInfo.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path}: no prepared data here; run `dvc repro prepare` first.") from None
    except ValidationError:
        raise UserError(f"{path}: was written by another version; run `dvc repro --force prepare`.") from None
