"""The split of each image: missing ones are carved from train, stratified by class and seeded."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, Split
from vit_vs_cnn.data.sources.source import Source


def assign_splits(source: Source, settings: DataSettings) -> NDArray[np.int64]:
    """Assign a split to each image, int64 (N,) of positions in PREPARED_SPLITS; missing splits are carved from train.

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
            f"needed to split them ({names}): add images or remove these classes."
        )
    parts = carve(labels, [fractions[split] for split in source.missing], settings.split_seed)
    splits = source.splits.copy()
    for part, split in enumerate(source.missing, start=1):
        splits[train[parts == part]] = PREPARED_SPLITS.index(split)
    return splits


def sample(split: Split, fraction: float, seed: int) -> Split:
    """Draw the same fraction of each class (at least one image) from a split; the fraction 1 is the split itself."""
    if fraction == 1.0:
        return split
    chosen = np.flatnonzero(carve(split.labels, [fraction], seed))
    return Split(split.images[chosen], split.labels[chosen], tuple(split.names[row] for row in chosen))


def carve(labels: NDArray[np.int64], fractions: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Assign a part to each image, int64 (N,): 1 for the first fraction, 2 for the second of what remains, …; else 0.

    Each class is carved in its own random order, at least one image for each part, whatever the other classes are.
    Every class needs more images than there are fractions, and fractions are below one half.
    """
    parts = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rest = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        for part, fraction in enumerate(fractions, start=1):
            size = max(1, round(len(rest) * fraction))
            parts[rest[:size]] = part
            rest = rest[size:]
    return parts
