"""The exploratory analysis of the training images: figures, the numbers behind them, and a summary."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vit_vs_cnn.config.schema import AugmentSettings, Settings
from vit_vs_cnn.data.checks import Checks, ImageRef, Kind
from vit_vs_cnn.data.dataset import DatasetInfo, Split, SplitName
from vit_vs_cnn.data.statistics import (
    MEAN_IMAGE_SIDE,
    MEASURES,
    PixelStatistics,
    beyond_fences,
    pixel_statistics,
    spread_by_class,
)
from vit_vs_cnn.report.eda_figures import (
    CHANNELS,
    augmentation,
    channel_correlation,
    class_distribution,
    colour_histogram,
    measure_by_class,
    tile_side,
)
from vit_vs_cnn.report.figures import FigureWriter
from vit_vs_cnn.report.grid import Tile, image_grid

_MOST_CLASSES = 20
_SAMPLES = 8
_MOST_SAMPLES = 80
_AUGMENTED = 6
_DRAWS = 7
_MIXED_DRAWS = 3
_OUTLIERS = 5

_MEASURES = {
    "brightness": (
        "How bright the images are",
        "mean grey level (0 black – 255 white)",
        "A class that differs from the others can be recognised by its brightness alone.",
    ),
    "contrast": (
        "How much contrast the images have",
        "standard deviation of the grey levels",
        "Near 0 an image is one flat surface.",
    ),
    "sharpness": (
        "How sharp the images are",
        "mean Sobel gradient (grey levels per pixel)",
        "A low value means blur or large even areas, a high one fine texture or noise.",
    ),
}
# Below a class's fence and above it.
_ENDS = {
    "brightness": ("darkest", "brightest"),
    "contrast": ("least contrast", "most contrast"),
    "sharpness": ("blurriest", "sharpest"),
}
# The findings about images that belong together.
_REPEATS: dict[Kind, str] = {
    "label_conflict": "two labels",
    "leakage": "in two splits",
    "duplicate": "identical",
    "near_duplicate": "nearly identical",
    "near_leakage": "across splits",
}


def write_eda(
    settings: Settings, info: DatasetInfo, splits: Mapping[SplitName, Split], checks: Checks, folder: Path
) -> None:
    """Analyse all training pixels and write every figure, its numbers, figures.json and summary.json to `folder`.

    Of `splits`, those besides train serve only to show what `checks` found there.
    """
    train = splits["train"]
    pixels = pixel_statistics(train.images, train.labels, len(info.classes))
    images = pd.DataFrame({"file": train.names, "class": [info.classes[label] for label in train.labels]})
    images = images.join(pixels.measures)
    spreads = {measure: spread_by_class(images[measure], train.labels, len(info.classes)) for measure in MEASURES}
    writer = FigureWriter(folder)
    writer.table("images", images)
    _add_class_distribution(writer, info)
    _add_samples(writer, info, train, images, settings.seed)
    _add_augmentation(writer, info, train, images, settings.recipe.augment, settings.seed)
    _add_colours(writer, pixels)
    _add_mean_images(writer, info, pixels.mean_images)
    _add_measures(writer, info, train, images, spreads)
    outliers = _add_outliers(writer, train, images, spreads)
    _add_duplicates(writer, checks, splits)
    writer.close()
    summary = _summary(info, pixels)
    summary |= {f"{measure}_outliers": count for measure, count in outliers.items()}
    summary |= {f"found_{kind}": count for kind, count in checks.counts.items()}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _add_class_distribution(writer: FigureWriter, info: DatasetInfo) -> None:
    counts = pd.DataFrame({split: part.counts for split, part in info.splits.items()})
    train = counts["train"].set_axis(info.classes)
    writer.add(
        "class_distribution",
        class_distribution(info.classes, counts),
        "How many images each class has",
        f"Images per class in each split. In training, {train.idxmax()} has the most ({train.max():,}) and "
        f"{train.idxmin()} the fewest ({train.min():,}).",
    )
    writer.table("class_distribution", pd.DataFrame({"class": info.classes}).join(counts))


def _add_samples(writer: FigureWriter, info: DatasetInfo, train: Split, images: pd.DataFrame, seed: int) -> None:
    random = np.random.default_rng(seed)
    shown = range(min(len(info.classes), _MOST_CLASSES))
    per_class = min(_SAMPLES, _MOST_SAMPLES // len(shown))
    drawn = [_draw(train.labels, label, per_class, random) for label in shown]
    writer.add(
        "samples",
        image_grid(
            [[Tile(train.images[row]) for row in rows] for rows in drawn],
            tile_side(train.images),
            row_labels=info.classes[:_MOST_CLASSES],
        ),
        "What the images look like",
        f"{per_class} training images of each class, drawn at random.{_first_classes(info)}",
    )
    writer.table("samples", images.loc[np.concatenate(drawn), ["class", "file"]])


def _add_augmentation(
    writer: FigureWriter, info: DatasetInfo, train: Split, images: pd.DataFrame, settings: AugmentSettings, seed: int
) -> None:
    switched_on = ", ".join(f"{key} {value:g}" for key, value in settings.model_dump().items() if value)
    if not switched_on:
        writer.skip("Augmentation: recipe.augment in params.yaml switches all of it off.")
        return
    random = np.random.default_rng(seed)
    shown = range(min(len(info.classes), _AUGMENTED))
    drawn = np.concatenate([_draw(train.labels, label, 1, random) for label in shown])
    mixed = _MIXED_DRAWS if settings.mixup or settings.cutmix else 0
    writer.add(
        "augmentation",
        augmentation(train.images[drawn], images.loc[drawn, "class"].tolist(), settings, _DRAWS, mixed, seed),
        "What training sees instead",
        f"Left the original, beside it {_DRAWS} random draws of its augmentation. Switched on: {switched_on}."
        + (" The draws called mixed are blended with another image as well." if mixed else ""),
    )
    writer.table("augmentation", images.loc[drawn, ["class", "file"]])


def _add_colours(writer: FigureWriter, pixels: PixelStatistics) -> None:
    means = ", ".join(f"{channel} {mean:.0f}" for channel, mean in _channel_means(pixels).items())
    writer.add(
        "colour_histogram",
        colour_histogram(pixels.histogram),
        "Which colours occur",
        f"Share of all {pixels.histogram[0].sum():,} training pixels at each level of red, green and blue. The means "
        f"are {means}.",
    )
    writer.table("colour_histogram", pd.DataFrame(pixels.histogram.T, columns=CHANNELS).reset_index(names="level"))
    writer.add(
        "channel_correlation",
        channel_correlation(pixels.correlation),
        "How alike the colour channels are",
        "Correlation of red, green and blue over all training pixels. At 1 the images are grey, and two of the three "
        "channels add nothing.",
    )
    correlation = pd.DataFrame(pixels.correlation, CHANNELS, CHANNELS)
    writer.table("channel_correlation", correlation.reset_index(names="channel"))


def _add_mean_images(writer: FigureWriter, info: DatasetInfo, mean_images: NDArray[np.uint8]) -> None:
    tiles = [Tile(image, name) for name, image in zip(info.classes, mean_images[:_MOST_CLASSES], strict=False)]
    writer.add(
        "mean_images",
        image_grid([tiles[first : first + 5] for first in range(0, len(tiles), 5)], MEAN_IMAGE_SIDE),
        "The mean image of each class",
        "Every pixel averaged over all training images of the class. What remains visible is where objects usually "
        "stand and what colour the background has: a model can learn that instead of the object."
        + _first_classes(info),
    )
    means = pd.DataFrame(mean_images.reshape(len(mean_images), -1, 3).mean(axis=1), columns=CHANNELS)
    counts = pd.DataFrame({"class": info.classes, "images": info.splits["train"].counts})
    writer.table("mean_images", counts.join(means))


def _add_measures(
    writer: FigureWriter, info: DatasetInfo, train: Split, images: pd.DataFrame, spreads: Mapping[str, pd.DataFrame]
) -> None:
    for measure, (title, unit, meaning) in _MEASURES.items():
        medians = spreads[measure]["median"].set_axis(info.classes)
        writer.add(
            measure,
            measure_by_class(images[measure], train.labels, info.classes, spreads[measure], unit),
            title,
            f"Above all training images, below each class: the box holds its middle half, the line in it is the "
            f"median, dots are outliers. Medians run from {medians.min():.1f} ({medians.idxmin()}) to "
            f"{medians.max():.1f} ({medians.idxmax()}). {meaning}",
        )
        writer.table(measure, pd.DataFrame({"class": info.classes}).join(spreads[measure]))
        counts, edges = np.histogram(images[measure], bins=60)
        writer.table(f"{measure}_histogram", {"low": edges[:-1], "high": edges[1:], "images": counts})


def _add_outliers(
    writer: FigureWriter, train: Split, images: pd.DataFrame, spreads: Mapping[str, pd.DataFrame]
) -> dict[str, int]:
    """Add the images farthest beyond the fences of their class; returns how many lie beyond them, by measure."""
    tables, rows, row_labels = [], [], []
    for measure, spread in spreads.items():
        beyond = beyond_fences(images[measure], train.labels, spread).sort_values(kind="stable")
        for end, outlying in zip(_ENDS[measure], (beyond[beyond < 0], beyond[beyond > 0][::-1]), strict=True):
            table = images.loc[outlying.index, ["file", "class", measure]].rename(columns={measure: "value"})
            tables.append(table.assign(measure=measure, beyond_fence_by=outlying))
            if len(table):
                rows.append(
                    [
                        Tile(train.images[row], f"{PurePath(file).name}\n{class_name}\n{value:.1f}")
                        for row, file, class_name, value, *_ in table[:_OUTLIERS].itertuples()
                    ]
                )
                row_labels.append(f"{end}\n({len(table):,} of them)")
    outliers = pd.concat(tables)
    writer.table("outliers", outliers[["measure", "file", "class", "value", "beyond_fence_by"]])
    if rows:
        writer.add(
            "outliers",
            image_grid(rows, tile_side(train.images) * 3 // 2, row_labels=row_labels),
            "Images unlike their class",
            f"The {_OUTLIERS} farthest outliers of each kind, with file name, class and value: images more than 1.5 "
            "interquartile ranges away from the middle half of their class. Look there for wrong labels and broken "
            "files.",
        )
    else:
        writer.skip("Outliers: no image lies far from its class in brightness, contrast or sharpness.")
    return {measure: int((outliers["measure"] == measure).sum()) for measure in spreads}


def _add_duplicates(writer: FigureWriter, checks: Checks, splits: Mapping[SplitName, Split]) -> None:
    """Add pairs of images that are the same or nearly so, of the `splits` that may be looked at."""
    found = [finding for kind in _REPEATS for finding in checks.findings if finding.kind == kind]
    listed = [
        (finding.kind, number, image.split, image.class_name, image.name)
        for finding in found
        for number, group in enumerate(finding.groups, start=1)
        for image in group
    ]
    writer.table("duplicates", pd.DataFrame(listed, columns=["kind", "group", "split", "class", "file"]))
    rows, row_labels = [], []
    for finding in found:
        visible = [[image for image in group if image.split in splits] for group in finding.groups]
        pairs = [group[:2] for group in visible if len(group) > 1][:_OUTLIERS]
        if pairs:
            rows += [[_repeat(image, splits[image.split]) for image in images] for images in zip(*pairs, strict=True)]
            row_labels += [_REPEATS[finding.kind], "its twin"]
    sentences = " ".join(finding.sentence for finding in found)
    if rows:
        writer.add(
            "duplicates",
            image_grid(rows, tile_side(splits["train"].images) * 3 // 2, row_labels=row_labels),
            "Images that occur more than once",
            f"{sentences} Each image of an upper row belongs to the one below it. Only train and val are shown: "
            "nothing but the evaluation looks at test.",
        )
    elif found:
        writer.skip(f"Duplicates: {sentences} All pairs include a test image, and test is not looked at here.")
    else:
        writer.skip("Duplicates: prepare found no images that are identical or nearly so.")


def _summary(info: DatasetInfo, pixels: PixelStatistics) -> dict[str, float]:
    counts = info.splits["train"].counts
    return {
        "classes": len(info.classes),
        "image_size": info.image_size,
        **{f"{split}_images": part.images for split, part in info.splits.items()},
        "imbalance_ratio": round(max(counts) / max(min(counts), 1), 3),
        **{f"mean_{channel}": round(mean, 3) for channel, mean in _channel_means(pixels).items()},
        **{f"{measure}_median": round(float(pixels.measures[measure].median()), 3) for measure in MEASURES},
    }


def _channel_means(pixels: PixelStatistics) -> dict[str, float]:
    means = pixels.histogram @ np.arange(256) / pixels.histogram[0].sum()
    return dict(zip(CHANNELS, means.tolist(), strict=True))


def _draw(labels: NDArray[np.int64], label: int, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """`count` random rows of a class, or all that there are."""
    return random.permutation(np.flatnonzero(labels == label))[:count]


def _repeat(image: ImageRef, split: Split) -> Tile:
    return Tile(split.images[image.row], f"{PurePath(image.name).name}\n{image.class_name}\n{image.split}")


def _first_classes(info: DatasetInfo) -> str:
    more = len(info.classes) > _MOST_CLASSES
    return f" Shown are the first {_MOST_CLASSES} of {len(info.classes)} classes." if more else ""
