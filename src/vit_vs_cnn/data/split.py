"""Which image goes to train, val or test: stratified, seeded, carved from what the source calls train."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.config.schema import DataSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, Split
from vit_vs_cnn.data.sources.source import Source


def assign_splits(source: Source, settings: DataSettings) -> NDArray[np.int64]:
    """The split of each image, int64 (N,) of positions in PREPARED_SPLITS; what is missing is carved from train.

    Raises UserError if a class has too few images to be in every split.
    """
    fractions = {"val": settings.val_fraction, "test": settings.test_fraction}
    train = np.flatnonzero(source.splits == PREPARED_SPLITS.index("train"))
    labels = source.labels[train]
    counts = np.bincount(labels, minlength=len(source.classes))
    too_small = np.flatnonzero(counts <= len(source.missing))
    if len(too_small):
        names = ", ".join(f"{source.classes[label]}: {counts[label]}" for label in too_small[:5])
        raise UserError(
            f"data.path: {len(too_small)} classes have fewer than the {len(source.missing) + 1} training images "
            f"that it takes to split them ({names}): add images or remove these classes."
        )
    parts = carve(labels, [fractions[split] for split in source.missing], settings.split_seed)
    splits = source.splits.copy()
    for part, split in enumerate(source.missing, start=1):
        splits[train[parts == part]] = PREPARED_SPLITS.index(split)
    return splits


def sample(split: Split, fraction: float, seed: int) -> Split:
    """A part of a split, of each class the same fraction (at least one image); all of it for the fraction 1."""
    if fraction == 1.0:
        return split
    chosen = np.flatnonzero(carve(split.labels, [fraction], seed))
    return Split(split.images[chosen], split.labels[chosen], tuple(split.names[each] for each in chosen))


def carve(labels: NDArray[np.int64], fractions: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Part of each image, int64 (N,): 1 for the first fraction, 2 for the second fraction of what is left, …; else 0.

    Each class is carved by itself, at least one image to each part, with its own random order: other classes do not
    change it. Every class needs more images than there are fractions, and fractions are below one half.
    """
    parts = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        left = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        for part, fraction in enumerate(fractions, start=1):
            held = max(1, round(len(left) * fraction))
            parts[left[:held]] = part
            left = left[held:]
    return parts
