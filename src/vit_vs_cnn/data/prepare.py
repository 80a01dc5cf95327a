"""From a source of images to the prepared data set: decoded, split, checked, written."""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.config.schema import DataSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.checks import Checks, DecodedImages, check, write_checks
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, DatasetInfo, SplitInfo, SplitName, write_info, write_split
from vit_vs_cnn.data.decode import decode_into
from vit_vs_cnn.data.sources.cifar10 import open_cifar10
from vit_vs_cnn.data.sources.digits import open_digits
from vit_vs_cnn.data.sources.folder import open_folder
from vit_vs_cnn.data.sources.source import Source, Unreadable
from vit_vs_cnn.data.split import assign_splits

_CHUNK_BYTES = 8 * 2**20
_MOST_NAMED = 5


@dataclass(frozen=True)
class Prepared:
    """What dataset.json and checks.json say."""

    info: DatasetInfo
    checks: Checks


def prepare(settings: DataSettings, into: Path) -> Prepared:
    """Write the prepared data of `settings.source` into the folder `into`, in place of what it held.

    Same source and settings, same bytes. Memory stays small whatever the size of the data: pixels go through a file.
    Raises UserError for whatever is wrong with the data or the disk; `settings.on_bad` decides about single files.
    """
    source = _open_source(settings)
    splits = assign_splits(source, settings)
    order = np.argsort(splits, kind="stable")
    with _fresh_folder(into, _bytes_needed(source, settings)), tempfile.TemporaryFile(dir=into) as scratch:
        images = _reserve(scratch, (len(order), settings.image_size, settings.image_size, 3))
        unreadable = [*source.unreadable, *decode_into(images, source, np.argsort(order))]
        if unreadable and settings.on_bad == "fail":
            raise UserError(_refusal(settings, unreadable))
        bad = {file.name for file in unreadable}
        kept = np.array([source.names[position] not in bad for position in order])
        order = order[kept]
        pixels = DecodedImages(
            images=_without_gaps(images, kept),
            labels=source.labels[order],
            splits=splits[order],
            names=[source.names[position] for position in order],
        )
        _refuse_classes_without_images(pixels, source, settings)
        checks = check(pixels, source, unreadable, settings.min_images_per_class)
        info = _write(pixels, source, settings, into)
        write_checks(into, checks)
        write_info(into, info)
    return Prepared(info, checks)


def _open_source(settings: DataSettings) -> Source:
    match settings.source:
        case "cifar10":
            return open_cifar10(Path(settings.path))
        case "folder":
            return open_folder(Path(settings.path))
        case "digits":
            return open_digits(settings.image_size)


def _bytes_needed(source: Source, settings: DataSettings) -> int:
    # Twice the pixels: they wait in a scratch file until it is known which images can be read.
    return 2 * len(source.names) * settings.image_size**2 * 3


@contextmanager
def _fresh_folder(folder: Path, needed: int) -> Iterator[None]:
    """An empty `folder` on a disk with `needed` free bytes; says in one sentence if the disk fails meanwhile."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        if shutil.disk_usage(folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}): it takes {needed / 1e6:,.0f} MB "
            "of free disk space and the right to write there."
        ) from None


def _reserve(file: BinaryIO, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An array on disk. Its space is taken now: a full disk would kill a process that writes into a map."""
    size = math.prod(shape)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)
    return np.memmap(file, np.uint8, "r+", shape=shape)


def _refusal(settings: DataSettings, unreadable: Sequence[Unreadable]) -> str:
    first = "; ".join(f"{file.name} ({file.reason})" for file in unreadable[:_MOST_NAMED])
    more = ", …" if len(unreadable) > _MOST_NAMED else ""
    files = "1 file" if len(unreadable) == 1 else f"{len(unreadable):,} files"
    return (
        f"data.path: {files} in {settings.path} cannot be read as images: {first}{more}: "
        "mend or remove them, or set data.on_bad to skip to leave them out."
    )


def _without_gaps(images: NDArray[np.uint8], kept: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The kept images moved together, in place."""
    if not kept.all():
        # A row only ever moves towards the front, onto one that has moved already.
        for place, row in enumerate(np.flatnonzero(kept)):
            images[place] = images[row]
    return images[: int(kept.sum())]


def _refuse_classes_without_images(pixels: DecodedImages, source: Source, settings: DataSettings) -> None:
    """Unreadable files may have emptied a class in train, or a whole split."""
    train = pixels.labels[pixels.rows("train")]
    empty = [name for label, name in enumerate(source.classes) if not (train == label).any()]
    if empty:
        raise UserError(
            f"data.path: {settings.path} has no readable training image of {', '.join(empty[:_MOST_NAMED])}: "
            "add images or remove these classes."
        )
    for split in PREPARED_SPLITS:
        if len(pixels.labels[pixels.rows(split)]) == 0:
            raise UserError(f"data.path: {settings.path} has no readable image for {split}: add images.")


def _write(pixels: DecodedImages, source: Source, settings: DataSettings, into: Path) -> DatasetInfo:
    infos: dict[SplitName, SplitInfo] = {}
    for split in PREPARED_SPLITS:
        rows = pixels.rows(split)
        labels = pixels.labels[rows]
        counts = np.bincount(labels, minlength=len(source.classes)).tolist()
        digest = write_split(into / split, pixels.images[rows], labels, pixels.names[rows])
        infos[split] = SplitInfo(images=len(labels), counts=tuple(counts), digest=digest)
    mean, std = _mean_and_std(pixels.images[pixels.rows("train")])
    contents = json.dumps([source.classes, [infos[split].digest for split in PREPARED_SPLITS]])
    return DatasetInfo(
        name=settings.name,
        source=settings.source,
        description=source.description,
        classes=source.classes,
        image_size=settings.image_size,
        split_seed=settings.split_seed,
        mean=mean,
        std=std,
        splits=infos,
        digest=hashlib.blake2b(contents.encode(), digest_size=16).hexdigest(),
    )


def _mean_and_std(images: NDArray[np.uint8]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Per channel on the scale 0 to 1, from histograms in whole numbers: exact, in whatever order they are summed."""
    histogram = np.zeros((3, 256), np.int64)
    chunk = max(1, _CHUNK_BYTES // images[0].nbytes)
    for start in range(0, len(images), chunk):
        pixels = images[start : start + chunk].reshape(-1, 3)
        histogram += np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])
    moments = [_moments([int(count) for count in channel]) for channel in histogram]
    (red, red_std), (green, green_std), (blue, blue_std) = moments
    return (red, green, blue), (red_std, green_std, blue_std)


def _moments(histogram: Sequence[int]) -> tuple[float, float]:
    total = sum(histogram)
    levels = sum(level * count for level, count in enumerate(histogram))
    squares = sum(level * level * count for level, count in enumerate(histogram))
    return levels / total / 255, math.sqrt(total * squares - levels * levels) / total / 255
