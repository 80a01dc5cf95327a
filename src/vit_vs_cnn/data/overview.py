"""What a source holds, for people: images per split and class, and what about them deserves a look."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.core.console import table
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, SplitName
from vit_vs_cnn.data.notes import balance_note
from vit_vs_cnn.data.sources.source import Source

_MOST_CLASSES = 20

# A file name that ends in a number after something else, or in a word after a number: `patient_12_003`, `p7_front`.
_IN_GROUP = re.compile(r"(?:(?P<numbered>.+?)[ _.-]+\(?\d+\)?|(?P<named>.*\d)[ _.-]+[^\W\d_]+)")


def split_sizes(source: Source) -> dict[SplitName, NDArray[np.int64]]:
    """The number of images of each class, int64 (classes,), for each split that the source has."""
    return {
        split: np.bincount(source.labels[source.splits == code], minlength=len(source.classes))
        for code, split in enumerate(PREPARED_SPLITS)
        if split not in source.missing
    }


def summary_lines(source: Source) -> list[str]:
    """The source in a few lines: its splits, its classes, and how it was understood."""
    sizes = split_sizes(source)
    splits = ", ".join(f"{split} {counts.sum():,}" for split, counts in sizes.items())
    named = [f"{name} {count:,}" for name, count in zip(source.classes, sizes["train"], strict=True)]
    more = f" and {len(named) - _MOST_CLASSES:,} more" if len(named) > _MOST_CLASSES else ""
    return [
        f"{source.description}: {splits} images",
        f"{len(named):,} classes (images in train): {', '.join(named[:_MOST_CLASSES])}{more}",
        *group_lines(source),
        *(f"note: {note}" for note in source.notes),
    ]


def group_lines(source: Source) -> list[str]:
    """How many groups the images are in, no line where nothing is known of groups."""
    if source.groups is None:
        return []
    sizes = Counter(source.groups)
    fewest, most = min(sizes.values()), max(sizes.values())
    return [f"{len(sizes):,} groups of {fewest:,} to {most:,} images; no carved split takes a part of one"]


def class_table(source: Source) -> str:
    """The number of images as a table of classes and splits."""
    sizes = split_sizes(source)
    counts = np.stack([*sizes.values()], axis=1)
    rows = [*zip(source.classes, counts.tolist(), strict=True), ("all", counts.sum(axis=0).tolist())]
    return table([("class", *sizes), *((name, *(f"{count:,}" for count in row)) for name, row in rows)])


def hints(source: Source) -> list[str]:
    """What a person should think about before training: unbalanced classes, files that belong together."""
    counts = split_sizes(source)["train"].tolist()
    grouped = [] if source.groups is not None else _name_groups(source.names, source.labels)
    return [*balance_note(source.classes, counts), *grouped]


def _name_groups(names: Sequence[str], labels: NDArray[np.int64]) -> list[str]:
    """Say where most names begin like others of their class, in several such groups."""
    groups: Counter[tuple[int, str]] = Counter()
    example: dict[tuple[int, str], str] = {}
    for name, label in zip(names, labels.tolist(), strict=True):
        file = name.rpartition("/")[2]
        if found := _IN_GROUP.fullmatch(file.rpartition(".")[0] or file):
            key = (label, found["numbered"] or found["named"])
            groups[key] += 1
            example.setdefault(key, file)
    shared = {key: count for key, count in groups.items() if count > 1}
    classes = len({label for label, _ in shared})
    if len(shared) < 2 * classes or 2 * sum(shared.values()) < len(names) or not shared:
        return []
    largest = max(shared, key=lambda key: (shared[key], key))
    return [
        f"File names look as if they held {len(shared):,} groups, such as {shared[largest]:,} files like "
        f"{example[largest]} that begin with {largest[1]!r}: where a group is one person, place or video, its images "
        "must all be in the same split: give data.groups a pattern that finds it in the path, such as 'patient_(\\d+)'."
    ]
