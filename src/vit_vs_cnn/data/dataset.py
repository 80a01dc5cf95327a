"""The prepared data set on disk: one folder per split with memory-mappable arrays, and dataset.json."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vit_vs_cnn.config.data import Channels, DataSettings, Fit
from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.records import Record

SplitName = Literal["train", "val", "test"]
PREPARED_SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
PREPARE_REMEDY = "run `dvc repro --force prepare`"
DIGESTS = "digests.npy"
_GROUPS = "groups.json"

# What is computed of them fits a processor's cache.
_CHUNK_BYTES = 2**20
# Ends of a range that differ by no more than this part of it are the same: 5 of 255 levels.
_SAME_RANGE = 0.02


class SplitInfo(Record):
    """Size, images per class (in the order of the classes), content digest and number of groups of one split.

    `groups` is None where nothing is known of groups.
    """

    images: int
    counts: tuple[int, ...]
    digest: str
    groups: int | None = None


class Decoding(Record):
    """How image files become pixels: in `prepare` and, kept with the model, in `predict` and `serve`.

    `fit` and `channels` are the settings of these names; grey images are stored as three equal channels, and networks
    see one. `levels` are what becomes black and white in images of more than 8 bits, None where train has none. The
    defaults are what data sets and models of earlier versions were made with.
    """

    fit: Fit = "crop"
    channels: Channels = "rgb"
    levels: tuple[float, float] | None = None

    @property
    def in_chans(self) -> int:
        """How many channels a network sees, by timm's word."""
        return 1 if self.channels == "grey" else 3

    def agrees_with(self, other: "Decoding") -> bool:
        """Whether models of the one can be measured on images of the other: ranges found in train differ a little."""
        if (self.fit, self.channels) != (other.fit, other.channels):
            return False
        if self.levels is None or other.levels is None:
            return self.levels == other.levels
        span = max(high - low for low, high in (self.levels, other.levels))
        return all(abs(a - b) <= _SAME_RANGE * span for a, b in zip(self.levels, other.levels, strict=True))

    def __str__(self) -> str:
        """For people, in the words of the settings."""
        levels = "" if self.levels is None else ", levels from {:,g} to {:,g}".format(*self.levels)
        return f"fit {self.fit}, channels {self.channels}{levels}"


BY_DEFAULT = Decoding()


class DatasetInfo(Record):
    """dataset.json: everything about the data that is not a pixel.

    `mean` and `std` are those of the training pixels per channel (RGB), on the scale 0 to 1.
    """

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
    decoding: Decoding = BY_DEFAULT


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, H, W, 3), memory-mapped; labels int64 (N,); names, the N file names or positions.

    `folder` is where they are stored, None for images that exist in memory only. `digests` uint64 (N,) are of the
    images as they came from the source, `groups` name what each shares with others; None where they are not known.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    folder: Path | None = None
    digests: NDArray[np.uint64] | None = None
    groups: tuple[str, ...] | None = None

    @property
    def group_codes(self) -> NDArray[np.int64] | None:
        """A code for each image's group, int64 (N,)."""
        return group_codes(self.groups)

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the folder where there is one: another process maps the same files, and no pixel is sent."""
        if self.folder is not None:
            return read_split, (self.folder.parent, self.folder.name)
        return Split, (self.images, self.labels, self.names, None, self.digests, self.groups)


def in_chunks(images: NDArray[np.uint8], task: str) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Copy images (N, S, S, 3), which may be memory-mapped, chunk by chunk: their rows and pixels, with a bar."""
    size = max(1, _CHUNK_BYTES // images[:1].nbytes)
    with tqdm(total=len(images), desc=task, unit=" images", **bar_options()) as bar:
        for start in range(0, len(images), size):
            pixels = np.array(images[start : start + size])
            yield slice(start, start + size), pixels
            bar.update(len(pixels))


def decoding_of(settings: DataSettings) -> Decoding:
    """How the settings have image files decoded, before train says which levels images of more than 8 bits use."""
    levels = (0.0, 2.0**settings.bit_depth - 1) if settings.bit_depth else None
    return Decoding(fit=settings.fit, channels=settings.channels, levels=levels)


def group_codes(groups: Sequence[str] | None) -> NDArray[np.int64] | None:
    """A code for each image's group, int64 (N,), None where there are no groups."""
    return None if groups is None else np.unique(np.array(groups), return_inverse=True)[1]


def write_split(
    folder: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    names: Sequence[str],
    digests: NDArray[np.uint64] | None = None,
    groups: Sequence[str] | None = None,
) -> str:
    """Write one split into `folder` and return the digest (hex) of its pixels and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "images.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(images))
        for _, pixels in in_chunks(images, "writing"):
            file.write(pixels.data)
    np.save(folder / "labels.npy", labels.astype(np.int64))
    (folder / "names.json").write_text(json.dumps(list(names), indent=0), encoding="utf-8")
    if digests is not None:
        np.save(folder / DIGESTS, digests)
    if groups is not None:
        (folder / _GROUPS).write_text(json.dumps(list(groups), indent=0), encoding="utf-8")
    return digest_of_split(images, labels)


def read_split(prepared: Path, split: SplitName) -> Split:
    """Open one split of the folder `prepared`, its images memory-mapped. Raises UserError where it is missing."""
    folder = prepared / split
    if not (folder / "images.npy").is_file():
        raise UserError(f"{folder}: holds no prepared images; {PREPARE_REMEDY}.")
    # allow_pickle stays False (numpy's default): a foreign .npy file cannot run code.
    return Split(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        labels=np.load(folder / "labels.npy"),
        names=tuple(json.loads((folder / "names.json").read_text(encoding="utf-8"))),
        folder=folder,
        digests=np.load(folder / DIGESTS) if (folder / DIGESTS).is_file() else None,
        groups=tuple(json.loads((folder / _GROUPS).read_text("utf-8"))) if (folder / _GROUPS).is_file() else None,
    )


def digest_of_split(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """The content digest (hex) of a split's pixels and labels."""
    digest = hashlib.blake2b(digest_size=16)
    for _, pixels in in_chunks(images, "digest"):
        digest.update(pixels.data)
    digest.update(np.ascontiguousarray(labels, dtype=np.int64).data)
    return digest.hexdigest()


def write_info(prepared: Path, info: DatasetInfo) -> None:
    """Write dataset.json, without what is not known of the data."""
    info.write(prepared / "dataset.json", exclude_none=True)


def read_info(prepared: Path) -> DatasetInfo:
    """Read dataset.json. Raises UserError where it is missing or of another version."""
    return DatasetInfo.read(prepared / "dataset.json", PREPARE_REMEDY)
