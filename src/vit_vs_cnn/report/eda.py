"""The exploratory analysis of the training images: figures, the numbers behind them, and a summary."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.data.checks import Checks
from vit_vs_cnn.data.dataset import DatasetInfo, Split, SplitName
from vit_vs_cnn.data.statistics import Measure, PixelStatistics, Quartiles, pixel_statistics, quartiles
from vit_vs_cnn.report.eda_figures import (
    CHANNELS,
    channel_correlation,
    class_distribution,
    colour_histogram,
    measure_by_class,
)
from vit_vs_cnn.report.eda_images import add_augmentation, add_duplicates, add_mean_images, add_outliers, add_samples
from vit_vs_cnn.report.figures import FigureWriter

_MEASURES: dict[Measure, tuple[str, str, str]] = {
    "brightness": (
        "How bright the images are",
        "mean grey level (0 black – 255 white)",
        "A class that stands apart from the others can be told by its brightness alone.",
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


def write_eda(
    settings: Settings, info: DatasetInfo, splits: Mapping[SplitName, Split], checks: Checks, folder: Path
) -> None:
    """Analyse all training pixels and write every figure, its numbers, figures.json and summary.json to `folder`.

    Of `splits`, those besides train serve only to show what `checks` found there.
    """
    train = splits["train"]
    pixels = pixel_statistics(train.images, train.labels, len(info.classes))
    summaries = {
        measure: quartiles(values, train.labels, len(info.classes)) for measure, values in pixels.measures.items()
    }
    gallery = FigureWriter(folder)
    _add_classes(gallery, info)
    add_samples(gallery, info, train, settings.seed)
    add_augmentation(gallery, info, train, settings.recipe.augment, settings.seed)
    _add_colours(gallery, pixels)
    add_mean_images(gallery, info, pixels.mean_images)
    _add_measures(gallery, info, train, pixels, summaries)
    outliers = add_outliers(gallery, info, train, pixels.measures, summaries)
    add_duplicates(gallery, info, checks, splits)
    gallery.close()
    summary = _summary(info, pixels)
    summary |= {f"{measure}_outliers": count for measure, count in outliers.items()}
    summary |= {f"found_{kind}": count for kind, count in checks.counts.items()}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _add_classes(gallery: FigureWriter, info: DatasetInfo) -> None:
    counts: dict[SplitName, tuple[int, ...]] = {split: part.counts for split, part in info.splits.items()}
    train = np.asarray(counts["train"])
    most, least = int(train.argmax()), int(train.argmin())
    gallery.add(
        "class_distribution",
        class_distribution(info.classes, counts),
        "How many images each class has",
        f"Images per class in each split. In training, {info.classes[most]} has the most ({train[most]:,}) and "
        f"{info.classes[least]} the fewest ({train[least]:,}).",
    )
    gallery.table(
        "class_distribution", {"class": info.classes, **{str(split): column for split, column in counts.items()}}
    )


def _add_colours(gallery: FigureWriter, pixels: PixelStatistics) -> None:
    means = pixels.histogram @ np.arange(256) / pixels.histogram[0].sum()
    gallery.add(
        "colour_histogram",
        colour_histogram(pixels.histogram),
        "Which colours occur",
        f"Share of all {pixels.histogram[0].sum():,} training pixels at each level of red, green and blue. The means "
        f"are {', '.join(f'{name} {mean:.0f}' for name, mean in zip(CHANNELS, means, strict=True))}.",
    )
    levels = {name: row.tolist() for name, row in zip(CHANNELS, pixels.histogram, strict=True)}
    gallery.table("colour_histogram", {"level": range(256), **levels})
    gallery.add(
        "channel_correlation",
        channel_correlation(pixels.correlation),
        "How alike the colour channels are",
        "Correlation of red, green and blue over all training pixels. At 1 the images are grey, and two of the three "
        "channels say nothing new.",
    )
    columns = {name: pixels.correlation[:, channel].tolist() for channel, name in enumerate(CHANNELS)}
    gallery.table("channel_correlation", {"channel": CHANNELS, **columns})


def _add_measures(
    gallery: FigureWriter, info: DatasetInfo, train: Split, pixels: PixelStatistics, summaries: dict[Measure, Quartiles]
) -> None:
    for measure, (title, unit, meaning) in _MEASURES.items():
        summary = summaries[measure]
        low, high = int(np.nanargmin(summary.median)), int(np.nanargmax(summary.median))
        gallery.add(
            measure,
            measure_by_class(pixels.measures[measure], train.labels, info.classes, summary, unit),
            title,
            f"Above all training images, below each class: the box holds its middle half, the line in it is the "
            f"median, dots are outliers. Medians run from {summary.median[low]:.1f} ({info.classes[low]}) to "
            f"{summary.median[high]:.1f} ({info.classes[high]}). {meaning}",
        )
        gallery.table(
            measure,
            {"class": info.classes} | {name: column.tolist() for name, column in vars(summary).items()},
        )
        counts, edges = np.histogram(pixels.measures[measure], bins=60)
        bins = {"low": edges[:-1].tolist(), "high": edges[1:].tolist(), "images": counts.tolist()}
        gallery.table(f"{measure}_histogram", bins)
    images = {"file": train.names, "class": [info.classes[label] for label in train.labels]}
    gallery.table("images", images | {name: values.tolist() for name, values in pixels.measures.items()})


def _summary(info: DatasetInfo, pixels: PixelStatistics) -> dict[str, float]:
    counts = info.splits["train"].counts
    medians = {f"{name}_median": round(float(np.median(values)), 3) for name, values in pixels.measures.items()}
    means = pixels.histogram @ np.arange(256) / pixels.histogram[0].sum()
    return {
        "classes": len(info.classes),
        "image_size": info.image_size,
        **{f"{split}_images": part.images for split, part in info.splits.items()},
        "imbalance_ratio": round(max(counts) / max(min(counts), 1), 3),
        **{f"mean_{name}": round(float(mean), 3) for name, mean in zip(CHANNELS, means, strict=True)},
        **medians,
    }
