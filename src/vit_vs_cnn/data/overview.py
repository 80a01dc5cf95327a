"""What a source holds, for people: images per split and class, and what about them deserves a look."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.core.console import table
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, SplitName
from vit_vs_cnn.data.groups import possible_groups
from vit_vs_cnn.data.notes import balance_note
from vit_vs_cnn.data.sources.source import Source

_MOST_CLASSES = 20
# Below so many images, the chance of the split deserves to be measured.
_FEW = 2_000


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
    """What a person should think about before training: unbalanced classes, few images, files that belong together."""
    counts = split_sizes(source)["train"].tolist()
    found = possible_groups(source)
    notes = [*balance_note(source.classes, counts), *_few_images(source)]
    if not found:
        return notes
    return [
        *notes,
        f"File names look as if they held {len(found):,} groups, such as {found[0]}: where a group is one person, "
        "place or video, its images must all be in the same split: give data.groups a pattern that finds it in the "
        "path, such as 'patient_(\\d+)'.",
    ]


def _few_images(source: Source) -> list[str]:
    if len(source.labels) >= _FEW or "test" not in source.missing:
        return []
    return [
        f"{len(source.labels):,} images are few: who is ahead depends on which of them are in test. A study with the "
        "axis `data.split_seed: [0, 1, 2, 3, 4]` repeats split, training and test (docs/studies.md)."
    ]
