"""From a source of images to the prepared data set: decoded, split, checked, written."""

import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.records import digest_of
from vit_vs_cnn.data.archive import open_store
from vit_vs_cnn.data.checks import Checks, check, write_checks
from vit_vs_cnn.data.dataset import (
    PREPARED_SPLITS,
    DatasetInfo,
    SplitInfo,
    SplitName,
    decoding_of,
    in_chunks,
    write_info,
    write_split,
)
from vit_vs_cnn.data.decode import DecodedImages, decode_source
from vit_vs_cnn.data.groups import refuse_shared_groups, shared_groups, with_groups
from vit_vs_cnn.data.object_store import is_in_store, local_copy
from vit_vs_cnn.data.overview import summary_lines
from vit_vs_cnn.data.sources.cifar10 import open_cifar10
from vit_vs_cnn.data.sources.digits import open_digits
from vit_vs_cnn.data.sources.folder import open_folder
from vit_vs_cnn.data.sources.source import RowFinding, Source, Unreadable
from vit_vs_cnn.data.sources.table import open_metadata, open_table
from vit_vs_cnn.data.sources.table_files import is_table
from vit_vs_cnn.data.sources.torchvision import open_torchvision
from vit_vs_cnn.data.split import assign_splits, carved_shares, content_digests, subset_rows

_MOST_NAMED = 5
_BAD_ROWS: dict[RowFinding, str] = {
    "missing_file": "rows whose image is not there",
    "contradiction": "images with contradicting rows",
    "no_label": "images without a label",
}


def prepare(
    settings: DataSettings, folder: Path, say: Callable[[str], None] = lambda _: None
) -> tuple[DatasetInfo, Checks]:
    """Write the prepared data of `settings.source` into `folder`, in place of what it held.

    Same source and settings, same bytes. Memory stays small whatever the size of the data: pixels go through a file.
    Before any work `say` gets, line by line, how the source was understood. Returns what is written to dataset.json and
    checks.json. Raises UserError for whatever is wrong with the data or the disk; `settings.on_bad` decides about
    single files.
    """
    source = open_source(settings)
    for line in summary_lines(source):
        say(line)
    if settings.on_bad == "fail":
        refuse_shared_groups(shared_groups(source), settings.path)
    digests = content_digests(source)
    splits = assign_splits(source, digests, settings)
    notes = carved_shares(source, splits, settings)
    rows = subset_rows(source, digests, splits, settings)
    if len(rows) < len(splits):
        notes = (*notes, _subset_note(splits, splits[rows], settings.train_fraction))
        source, digests, splits = source.of_rows(rows), digests[rows], splits[rows]
    source = replace(source, notes=(*source.notes, *notes))
    shape = (len(splits), settings.image_size, settings.image_size, 3)
    # Twice the pixels: they wait in a scratch file until it is known which images can be read.
    with _fresh_folder(folder, 2 * math.prod(shape)), tempfile.TemporaryFile(dir=folder) as scratch:
        decoded, undecodable = decode_source(source, splits, _reserve(scratch, shape), decoding_of(settings))
        unreadable = [*source.unreadable, *undecodable]
        if settings.on_bad == "fail":
            _refuse_bad(unreadable, source, settings.path)
        _refuse_gaps(decoded, source.classes, settings.path)
        checks = check(decoded, source, unreadable, settings.min_images_per_class)
        info = _write_splits(decoded, digests, source, settings, folder)
        write_checks(folder, checks)
        write_info(folder, info)
    return info, checks


def open_source(settings: DataSettings) -> Source:
    """Open the source that the settings name, with the groups of its images; one in an object store is downloaded.

    Raises UserError for whatever it cannot be read as.
    """
    if is_in_store(settings.path):
        settings = settings.model_copy(update={"path": str(local_copy(settings.path))})
    return with_groups(_open(settings), settings.groups)


def _open(settings: DataSettings) -> Source:
    """Each source is a module of data/sources/ with one such function."""
    match settings.source:
        case "cifar10":
            return open_cifar10(Path(settings.path))
        case "folder":
            path, store = Path(settings.path), open_store(Path(settings.path))
            is_told = settings.splits or settings.class_level
            listed = None if is_told else open_metadata(settings, store)
            return listed or open_folder(path, settings.splits, settings.class_level, settings.on_bad, store)
        case "table":
            return open_table(settings)
        case "torchvision":
            return open_torchvision(Path(settings.path), settings.dataset)
        case "digits":
            return open_digits(settings.image_size)


def source_at(path: str) -> str:
    """The value of `data.source` that reads what is at `path`."""
    return "table" if is_table(Path(path).name) and (is_in_store(path) or Path(path).is_file()) else "folder"


@contextmanager
def _fresh_folder(folder: Path, needed: int) -> Iterator[None]:
    """An empty `folder` on a disk with `needed` free bytes. Raises UserError if the disk fails meanwhile."""
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


def _subset_note(splits: NDArray[np.int64], used: NDArray[np.int64], fraction: float) -> str:
    counts = [
        f"{(used == code).sum():,} of {(splits == code).sum():,} {split} images"
        for code, split in enumerate(PREPARED_SPLITS[:2])
    ]
    return f"data.train_fraction {fraction:g}: {' and '.join(counts)} are used, test is whole."


def _refuse_bad(unreadable: Sequence[Unreadable], source: Source, path: str) -> None:
    """Raise UserError if there are unreadable files or rows that cannot be used, naming some of each kind."""
    bad = {
        "files that cannot be read as images": [f"{file.name} ({file.reason})" for file in unreadable],
        **{sentence: source.row_findings.get(kind, ()) for kind, sentence in _BAD_ROWS.items()},
    }
    named = [f"{what}, {len(names):,} in all: {'; '.join(names[:_MOST_NAMED])}" for what, names in bad.items() if names]
    if named:
        raise UserError(
            f"data.path: {path} holds {', and '.join(named)}: fix or remove them, or set data.on_bad to skip."
        )


def _refuse_gaps(decoded: DecodedImages, classes: Sequence[str], path: str) -> None:
    """Raise UserError if unreadable files have emptied a class in train, or a whole split."""
    empty = set(range(len(classes))).difference(decoded.labels[decoded.rows("train")].tolist())
    if empty:
        names = ", ".join(classes[label] for label in sorted(empty)[:_MOST_NAMED])
        raise UserError(f"data.path: {path} has no readable training image of {names}: add some or remove the classes.")
    for code, split in enumerate(PREPARED_SPLITS):
        if code not in decoded.splits:
            raise UserError(f"data.path: {path} has no readable image for {split}: add images.")


def _write_splits(
    decoded: DecodedImages, digests: NDArray[np.uint64], source: Source, settings: DataSettings, folder: Path
) -> DatasetInfo:
    infos: dict[SplitName, SplitInfo] = {}
    for split in PREPARED_SPLITS:
        rows = decoded.rows(split)
        labels, positions = decoded.labels[rows], decoded.positions[rows]
        counts = np.bincount(labels, minlength=len(source.classes)).tolist()
        groups = None if source.groups is None else [source.groups[position] for position in positions]
        digest = write_split(
            folder / split, decoded.images[rows], labels, decoded.names[rows], digests[positions], groups
        )
        infos[split] = SplitInfo(
            images=len(labels),
            counts=tuple(counts),
            digest=digest,
            groups=None if groups is None else len(set(groups)),
        )
    red, green, blue = (_mean_and_std(histogram) for histogram in _histograms(decoded.images[decoded.rows("train")]))
    contents = json.dumps([source.classes, [infos[split].digest for split in PREPARED_SPLITS]])
    return DatasetInfo(
        name=settings.name,
        source=settings.source,
        description=source.description,
        classes=source.classes,
        image_size=settings.image_size,
        split_seed=settings.split_seed,
        mean=(red[0], green[0], blue[0]),
        std=(red[1], green[1], blue[1]),
        splits=infos,
        digest=digest_of(contents.encode()),
        decoding=decoded.decoding,
    )


def _histograms(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The number of pixels at each level, (3, 256) for the channels."""
    histograms = np.zeros((3, 256), np.int64)
    for _, pixels in in_chunks(images, "colours"):
        levels = pixels.reshape(-1, 3)
        histograms += np.stack([np.bincount(levels[:, channel], minlength=256) for channel in range(3)])
    return histograms


def _mean_and_std(histogram: NDArray[np.int64]) -> tuple[float, float]:
    """On the scale 0 to 1, exact: the sums of all levels to the powers 0, 1 and 2 are Python's whole numbers."""
    total, levels, squares = (int(histogram @ np.arange(256) ** power) for power in range(3))
    return levels / total / 255, math.sqrt(total * squares - levels * levels) / total / 255
