"""The split of each image: missing ones are carved from train, by the content of an image or the name of its group."""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, Split, SplitName
from vit_vs_cnn.data.sources.source import Source

Digests = NDArray[np.uint64]


def content_digests(source: Source) -> Digests:
    """The digest of each image as it comes from the source, its file or its pixels, uint64 (N,).

    Raises UserError if the source does not hold what it listed.
    """
    digests: dict[int, int] = {}
    total = len(source.names)
    for position, image in tqdm(source.read(), total=total, desc="reading", unit=" images", **bar_options()):
        digests[position] = _digest(image if isinstance(image, bytes) else image.tobytes())
    if len(digests) < total:
        raise UserError(f"{source.description}: changed while it was read: run the stage again.")
    return np.array([digests[position] for position in range(total)], np.uint64)


def assign_splits(source: Source, digests: Digests, settings: DataSettings) -> NDArray[np.int64]:
    """Assign a split to each image, int64 (N,) of positions in PREPARED_SPLITS; missing splits are carved from train.

    Images of the same group get the same split; where there are no groups, those with the same digest do. Raises
    UserError if a class has too few images to be in every split, or there are too few groups.
    """
    splits = source.splits.copy()
    if not source.missing:
        return splits
    train = np.flatnonzero(splits == PREPARED_SPLITS.index("train"))
    labels, keys = source.labels[train], digests[train]
    _refuse_few_images(np.bincount(labels, minlength=len(source.classes)), source)
    if source.groups is not None:
        keys = np.array([_digest(source.groups[position].encode()) for position in train], np.uint64)
        _refuse_few_groups(len(np.unique(keys)), source)
    fractions = {"val": settings.val_fraction, "test": settings.test_fraction}
    parts = carve_by_digest(keys, labels, {split: fractions[split] for split in source.missing}, settings.split_seed)
    splits[train] = np.array([PREPARED_SPLITS.index(split) for split in ("train", *source.missing)])[parts]
    return splits


def carved_shares(source: Source, splits: NDArray[np.int64], settings: DataSettings) -> tuple[str, ...]:
    """A sentence about the shares that carving came to beside those that `settings` ask for, if any was carved."""
    if not source.missing:
        return ()
    fractions, shares = {"val": settings.val_fraction, "test": settings.test_fraction}, []
    rest = int((source.splits == PREPARED_SPLITS.index("train")).sum())
    for split in source.missing:
        count = int((splits == PREPARED_SPLITS.index(split)).sum())
        shares.append(f"{split} has {count:,} of {rest:,} images, {count / rest:.1%} for {fractions[split]:.1%}")
        rest -= count
    by = "the names of their groups" if source.groups is not None else "the digests of their images"
    return (f"Splits are carved by {by}, so shares are near what was asked for: {'; '.join(shares)}.",)


def carve_by_digest(
    keys: Digests, labels: NDArray[np.int64], fractions: dict[SplitName, float], seed: int
) -> NDArray[np.int64]:
    """Assign a part to each image, int64 (N,): 1 for the first of `fractions`, 2 for the second of the rest, …; else 0.

    The images that share a key (uint64 (N,)) are a unit. A unit has a number between 0 and 1 for each part, which
    follows from its key and `seed` alone, and is in the first part whose fraction exceeds that number: whatever else
    is there. Only where a class would lack a part, a single unit of it moves there, the one with the smallest number,
    if that leaves its own part an image of each of its classes; train gets one in any case.
    """
    unit_keys, unit = np.unique(keys, return_inverse=True)
    numbers = np.stack([_numbers(unit_keys, seed, part) for part in ("train", *fractions)])
    parts = np.zeros(len(unit_keys), np.int64)
    for part, fraction in enumerate(fractions.values(), start=1):
        parts[(parts == 0) & (numbers[part] < fraction)] = part
    _fill_gaps(parts, numbers, np.unique(np.stack([unit, labels], axis=1), axis=0))
    return parts[unit]


def subset_rows(
    source: Source, digests: Digests, splits: NDArray[np.int64], settings: DataSettings
) -> NDArray[np.int64]:
    """The images that `data.train_fraction` leaves, as ascending positions: all of test, a part of train and of val.

    Of each class in each of the two splits it is the fraction, rounded, and at least one image: the first ones in an
    order that follows from the name of an image's group and its digest (uint64 (N,)), so that a smaller fraction is
    within a larger one. Raises UserError where the fraction of train is fewer images than there are classes.
    """
    if settings.train_fraction == 1.0:
        return np.arange(len(splits))
    refuse_empty_subset(int((splits == PREPARED_SPLITS.index("train")).sum()), len(source.classes), settings)
    seed, keys = settings.split_seed, digests
    if source.groups is not None:
        keys = np.array([_digest(group.encode()) for group in source.groups], np.uint64)
    order = np.lexsort((_numbers(digests, seed, "subset"), _numbers(keys, seed, "subset")))
    kept = [np.flatnonzero(splits == PREPARED_SPLITS.index("test"))]
    for split in ("train", "val"):
        of_split = order[splits[order] == PREPARED_SPLITS.index(split)]
        for label in np.unique(source.labels[of_split]):
            of_class = of_split[source.labels[of_split] == label]
            kept.append(of_class[: subset_size(len(of_class), settings.train_fraction)])
    return np.sort(np.concatenate(kept))


def subset_size(images: int, fraction: float) -> int:
    """How many of a class's images the fraction is."""
    return max(1, round(images * fraction))


def refuse_empty_subset(images: int, classes: int, settings: DataSettings) -> None:
    """Raise UserError where `data.train_fraction` of so many training images is fewer than one for each class."""
    if images * settings.train_fraction < classes:
        raise UserError(
            f"data.train_fraction: {settings.train_fraction:g} of {images:,} training images is fewer than the "
            f"{classes} classes: set it to {math.ceil(1e4 * classes / images) / 1e4:g} or more."
        )


def sample(split: Split, fraction: float, seed: int) -> Split:
    """Draw the same fraction of each class (at least one image) from a split; the fraction 1 is the split itself."""
    if fraction == 1.0:
        return split
    chosen = []
    for label in np.unique(split.labels):
        of_class = np.random.default_rng([seed, label]).permutation(np.flatnonzero(split.labels == label))
        chosen.append(of_class[: subset_size(len(of_class), fraction)])
    rows = np.sort(np.concatenate(chosen))
    return Split(split.images[rows], split.labels[rows], tuple(split.names[row] for row in rows))


def _fill_gaps(parts: NDArray[np.int64], numbers: NDArray[np.float64], members: NDArray[np.int64]) -> None:
    """Change `parts` (U,) of single units so that no class lacks a part, where it can be had.

    `numbers` are (P, U), `members` the pairs of a unit and a class that it has images of, (M, 2), each once.
    """
    units, labels = members.T
    # How many units of each class are in each part.
    counts = np.zeros((len(numbers), 1 + labels.max()), np.int64)
    np.add.at(counts, (parts[units], labels), 1)
    for part in range(len(numbers)):
        for label in np.unique(labels):
            if counts[part, label]:
                continue
            classes_of = {unit: labels[units == unit] for unit in units[labels == label]}
            movable = [unit for unit, classes in classes_of.items() if (counts[parts[unit], classes] > 1).all()]
            candidates = movable or (list(classes_of) if part == 0 else [])
            if candidates:
                chosen = min(candidates, key=lambda unit: float(numbers[part, unit]))
                counts[parts[chosen], classes_of[chosen]] -= 1
                counts[part, classes_of[chosen]] += 1
                parts[chosen] = part


def _refuse_few_images(counts: NDArray[np.int64], source: Source) -> None:
    needed = len(source.missing) + 1
    too_small = np.flatnonzero(counts < needed)
    if len(too_small):
        names = ", ".join(f"{source.classes[label]}: {counts[label]}" for label in too_small[:5])
        raise UserError(
            f"data.path: {len(too_small)} classes have fewer than the {needed} training images "
            f"needed to split them ({names}): add images or remove these classes."
        )


def _refuse_few_groups(count: int, source: Source) -> None:
    if count <= len(source.missing):
        raise UserError(
            f"data.groups: the training images are of {count} groups, and {len(source.missing) + 1} at least are "
            "needed to split them: add images of other groups, or name smaller ones."
        )


def _numbers(keys: Digests, seed: int, part: str) -> NDArray[np.float64]:
    salt = f"{seed} {part}".encode()
    return np.array([_digest(key.tobytes(), salt) for key in keys]) / 2.0**64


def _digest(content: bytes, key: bytes = b"") -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=key).digest())
