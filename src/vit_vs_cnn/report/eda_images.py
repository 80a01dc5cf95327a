"""The pictures of the exploratory analysis that consist of images: samples, augmentation, outliers."""

from collections.abc import Mapping
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.config.schema import AugmentSettings
from vit_vs_cnn.data.checks import Checks, ImageRef, Kind
from vit_vs_cnn.data.dataset import DatasetInfo, Split, SplitName
from vit_vs_cnn.data.statistics import MEAN_IMAGE_SIDE, Measure, Quartiles
from vit_vs_cnn.report.figures import FigureWriter
from vit_vs_cnn.report.grid import Tile, image_grid

MOST_CLASSES = 20
_SAMPLES = 8
_MOST_SAMPLES = 80
_AUGMENTED = 6
_DRAWS = 7
_OUTLIERS = 5

# What lies below a class's fence and above it, in words.
_ENDS: dict[Measure, tuple[str, str]] = {
    "brightness": ("darkest", "brightest"),
    "contrast": ("least contrast", "most contrast"),
    "sharpness": ("blurriest", "sharpest"),
}

# The findings that are about images which belong together.
_REPEATS: dict[Kind, str] = {
    "label_conflict": "two labels",
    "leakage": "in two splits",
    "duplicate": "identical",
    "near_duplicate": "nearly identical",
    "near_leakage": "across splits",
}


def add_samples(gallery: FigureWriter, info: DatasetInfo, train: Split, seed: int) -> None:
    """Images of each class drawn at random."""
    random = np.random.default_rng(seed)
    shown = range(min(len(info.classes), MOST_CLASSES))
    per_class = min(_SAMPLES, _MOST_SAMPLES // len(shown))
    rows = [_draw(train.labels, label, per_class, random) for label in shown]
    figure = image_grid(
        [[Tile(train.images[i]) for i in row] for row in rows],
        side=_side(info),
        row_labels=info.classes[:MOST_CLASSES],
    )
    gallery.add(
        "samples",
        figure,
        "What the images look like",
        f"{per_class} training images of each class, drawn at random.{_first_classes(info)}",
    )
    drawn = [i for row in rows for i in row]
    gallery.table("samples", {"class": _classes(info, train, drawn), "file": [train.names[i] for i in drawn]})


def add_augmentation(
    gallery: FigureWriter, info: DatasetInfo, train: Split, settings: AugmentSettings, seed: int
) -> None:
    """The same images before augmentation and after it, several draws of each."""
    if not any(settings.model_dump().values()):
        gallery.skip("Augmentation: recipe.augment in params.yaml switches all of it off.")
        return
    random = np.random.default_rng(seed)
    labels = range(min(len(info.classes), _AUGMENTED))
    shown = [i for label in labels for i in _draw(train.labels, label, 1, random)]
    plain = np.stack([train.images[i] for i in shown])
    changed, mixed = _augmented(plain, settings, seed)
    headings = ["original", *(f"{'mixed' if draw in mixed else 'draw'} {draw + 1}" for draw in range(_DRAWS))]
    rows = [[Tile(image), *map(Tile, draws)] for image, draws in zip(plain, changed, strict=True)]
    figure = image_grid(
        rows, side=_side(info), column_labels=headings, row_labels=[info.classes[label] for label in labels]
    )
    switched_on = ", ".join(f"{key} {value:g}" for key, value in settings.model_dump().items() if value)
    gallery.add(
        "augmentation",
        figure,
        "What training sees instead",
        f"Left the original, beside it {_DRAWS} random draws of its augmentation. Switched on: {switched_on}."
        + (" The draws called mixed are blended with another image as well." if mixed else ""),
    )
    gallery.table("augmentation", {"class": _classes(info, train, shown), "file": [train.names[i] for i in shown]})


def add_mean_images(gallery: FigureWriter, info: DatasetInfo, mean_images: NDArray[np.uint8]) -> None:
    """The mean image of each class."""
    tiles = [Tile(image, name) for name, image in zip(info.classes, mean_images[:MOST_CLASSES], strict=False)]
    gallery.add(
        "mean_images",
        image_grid([tiles[first : first + 5] for first in range(0, len(tiles), 5)], side=MEAN_IMAGE_SIDE),
        "The mean image of each class",
        "Every pixel averaged over all training images of the class. What remains visible is where objects usually "
        f"stand and what colour the background has: a model can learn that"
        f" instead of the object.{_first_classes(info)}",
    )
    means = mean_images.reshape(len(mean_images), -1, 3).mean(axis=1)
    columns = {name: means[:, channel].tolist() for channel, name in enumerate(("red", "green", "blue"))}
    gallery.table("mean_images", {"class": info.classes, "images": info.splits["train"].counts, **columns})


def add_outliers(
    gallery: FigureWriter,
    info: DatasetInfo,
    train: Split,
    measures: Mapping[Measure, NDArray[np.float32]],
    summaries: Mapping[Measure, Quartiles],
) -> dict[Measure, int]:
    """The images farthest beyond the fences of their class; returns how many lie beyond them, by measure."""
    counts: dict[Measure, int] = {}
    rows, row_labels = [], []
    table: dict[str, list[object]] = {key: [] for key in ("measure", "file", "class", "value", "beyond_fence_by")}
    for measure, values in measures.items():
        excess = summaries[measure].excess(values, train.labels)
        order = np.argsort(excess, kind="stable")
        ends = order[excess[order] < 0], order[excess[order] > 0][::-1]
        counts[measure] = len(ends[0]) + len(ends[1])
        for name, outlying in zip(_ENDS[measure], ends, strict=True):
            if len(outlying):
                rows.append([_outlier(info, train, i, values[i]) for i in outlying[:_OUTLIERS]])
                row_labels.append(f"{name}\n({len(outlying):,} of them)")
            table["measure"] += [measure] * len(outlying)
            table["file"] += [train.names[i] for i in outlying]
            table["class"] += _classes(info, train, outlying)
            table["value"] += values[outlying].tolist()
            table["beyond_fence_by"] += excess[outlying].tolist()
    gallery.table("outliers", table)
    if not rows:
        gallery.skip("Outliers: no image lies far from its class in brightness, contrast or sharpness.")
        return counts
    gallery.add(
        "outliers",
        image_grid(rows, side=_side(info) * 3 // 2, row_labels=row_labels),
        "Images unlike their class",
        f"The {_OUTLIERS} farthest outliers of each kind, with file name, class and value: images more than 1.5 "
        "interquartile ranges away from the middle half of their class. Look there"
        " for wrong labels and broken files.",
    )
    return counts


def add_duplicates(gallery: FigureWriter, info: DatasetInfo, checks: Checks, splits: Mapping[SplitName, Split]) -> None:
    """Pairs of images that the checks found to be the same or nearly so, of the `splits` that may be looked at."""
    found = [finding for kind in _REPEATS for finding in checks.findings if finding.kind == kind]
    listed = [
        (finding.kind, n, image) for finding in found for n, group in enumerate(finding.groups, 1) for image in group
    ]
    gallery.table(
        "duplicates",
        {
            "kind": [kind for kind, _, _ in listed],
            "group": [n for _, n, _ in listed],
            "split": [image.split for _, _, image in listed],
            "class": [image.class_name for _, _, image in listed],
            "file": [image.name for _, _, image in listed],
        },
    )
    if not found:
        gallery.skip("Duplicates: prepare found no images that are identical or nearly so.")
        return
    rows: list[list[Tile]] = []
    row_labels: list[str] = []
    for finding in found:
        seen = [[image for image in group if image.split in splits] for group in finding.groups]
        pairs = [group[:2] for group in seen if len(group) > 1][:_OUTLIERS]
        if pairs:
            rows += [[_repeat(pair[k], splits[pair[k].split]) for pair in pairs] for k in (0, 1)]
            row_labels += [_REPEATS[finding.kind], "its twin"]
    sentences = " ".join(finding.sentence for finding in found)
    if not rows:
        gallery.skip(f"Duplicates: {sentences} All pairs include a test image, and test is not looked at here.")
        return
    gallery.add(
        "duplicates",
        image_grid(rows, side=_side(info) * 3 // 2, row_labels=row_labels),
        "Images that occur more than once",
        f"{sentences} Each image of an upper row belongs with the one below it. Only train and val are shown: nothing "
        "but the evaluation looks at test.",
    )


def _repeat(image: ImageRef, split: Split) -> Tile:
    return Tile(split.images[image.row], f"{PurePath(image.name).name}\n{image.class_name}\n{image.split}")


def _outlier(info: DatasetInfo, train: Split, index: int, value: float) -> Tile:
    name = PurePath(train.names[index]).name
    return Tile(train.images[index], f"{name}\n{info.classes[train.labels[index]]}\n{value:.1f}")


def _augmented(plain: NDArray[np.uint8], settings: AugmentSettings, seed: int) -> tuple[NDArray[np.uint8], range]:
    """`plain` (N, H, W, 3) in `_DRAWS` versions, (N, draws, H, W, 3), and which of the draws are also mixed."""
    # Importing torch takes seconds: only this figure needs it.
    import torch

    from vit_vs_cnn.data.augment.batch import Augment
    from vit_vs_cnn.data.augment.mix import mix

    generator = torch.Generator().manual_seed(seed)
    batch = torch.from_numpy(plain).repeat_interleave(_DRAWS, dim=0)
    draws = Augment(settings)(batch, generator).reshape(len(plain), _DRAWS, *plain.shape[1:])
    mixed = range(4, _DRAWS) if settings.mixup or settings.cutmix else range(0)
    for draw in mixed:
        pixels = draws[:, draw].permute(0, 3, 1, 2).float()
        blend, _ = mix(pixels, torch.ones(len(plain), 1), settings, generator)
        draws[:, draw] = blend.permute(0, 2, 3, 1).round().to(torch.uint8)
    return draws.numpy(), mixed


def _draw(labels: NDArray[np.int64], label: int, count: int, random: np.random.Generator) -> list[int]:
    own = np.flatnonzero(labels == label)
    chosen: list[int] = random.permutation(own)[:count].tolist()
    return chosen


def _side(info: DatasetInfo) -> int:
    """The side of a tile: few pixels are shown large; photographs smaller, because they make a PNG heavy."""
    return 96 if info.image_size <= 96 else 72


def _classes(info: DatasetInfo, split: Split, indices: NDArray[np.int64] | list[int]) -> list[str]:
    return [info.classes[label] for label in split.labels[indices]]


def _first_classes(info: DatasetInfo) -> str:
    more = len(info.classes) > MOST_CLASSES
    return f" Shown are the first {MOST_CLASSES} of {len(info.classes)} classes." if more else ""
