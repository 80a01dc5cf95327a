"""The exploratory analysis of the training images: figures, the numbers behind them, and a summary."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vit_vs_cnn.config.recipe import AugmentSettings
from vit_vs_cnn.core.order import natural_order
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
from vit_vs_cnn.report.figure_writer import FigureWriter
from vit_vs_cnn.report.grid import Tile, image_grid, in_rows

_MOST_CLASSES = 20
_MEAN_IMAGES_PER_ROW = 5
_SAMPLES = 8
_MOST_SAMPLES = 80
_AUGMENTED = 6
_DRAWS = 7
_MIXED_DRAWS = 3
_OUTLIERS = 5

# The findings about images that belong together.
_REPEATS: dict[Kind, str] = {
    "label_conflict": "two labels",
    "leakage": "in two splits",
    "duplicate": "identical",
    "near_duplicate": "nearly identical",
    "near_leakage": "across splits",
    "look_alike": "look alike",
}


def write_eda(
    augment: AugmentSettings, info: DatasetInfo, splits: Mapping[SplitName, Split], checks: Checks, folder: Path
) -> None:
    """Analyse all training pixels and write every figure, its numbers, figures.json and summary.json to `folder`.

    Of `splits`, those besides train serve only to show what `checks` found there; `augment` is shown on some images.
    """
    train = splits["train"]
    classes = pd.Index(info.classes, name="class")
    pixels = pixel_statistics(train.images, train.labels, len(classes))
    images = pd.DataFrame({"file": train.names, "class": classes[train.labels]}).join(pixels.measures)
    spreads = {
        measure: spread_by_class(images[measure], train.labels, len(classes)).set_axis(classes) for measure in MEASURES
    }
    writer = FigureWriter(folder, "eda")
    writer.table("images", images)
    _add_class_distribution(writer, info, classes)
    _add_samples(writer, train, images, classes, info.split_seed, checks.notes)
    _add_augmentation(writer, train, images, classes, augment, info.split_seed)
    _add_colours(writer, pixels)
    _add_mean_images(writer, pixels, classes, np.bincount(train.labels, minlength=len(classes)))
    _add_measures(writer, train, images, spreads)
    outliers = _add_outliers(writer, train, images, spreads)
    _add_duplicates(writer, checks, splits)
    writer.close()
    summary = _summary(info, pixels)
    summary |= {f"{measure}_outliers": count for measure, count in outliers.items()}
    summary |= {f"found_{kind}": count for kind, count in checks.counts.items()}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _add_class_distribution(writer: FigureWriter, info: DatasetInfo, classes: "pd.Index[str]") -> None:
    counts = pd.DataFrame({split: part.counts for split, part in info.splits.items()}, classes)
    train = counts["train"]
    writer.add(
        "class_distribution",
        class_distribution(counts),
        f"{len(classes)} classes with {train.min():,} to {train.max():,} training images",
        most=train.idxmax(),
        most_images=train.max(),
        fewest=train.idxmin(),
        fewest_images=train.min(),
    )
    writer.table("class_distribution", counts.reset_index())


def _add_samples(
    writer: FigureWriter,
    train: Split,
    images: pd.DataFrame,
    classes: "pd.Index[str]",
    seed: int,
    notes: Sequence[str],
) -> None:
    """Add some images of each class, and under them what the notes say of all images."""
    random = np.random.default_rng(seed)
    shown = natural_order(classes.tolist())[:_MOST_CLASSES]
    per_class = min(_SAMPLES, _MOST_SAMPLES // len(shown))
    drawn = [_draw(train.labels, label, per_class, random) for label in shown]
    rows = [[Tile(train.images[row]) for row in chosen] for chosen in drawn]
    figure = image_grid(rows, tile_side(train.images), row_labels=classes[shown].tolist())
    said = " ".join(filter(None, (_first_classes(writer, classes), *notes)))
    alt = f"A row of images for each class: {', '.join(classes[shown])}"
    writer.add_images("samples", figure, alt, per_class=per_class, notes=said)
    writer.table("samples", images.loc[np.concatenate(drawn), ["class", "file"]])


def _add_augmentation(
    writer: FigureWriter,
    train: Split,
    images: pd.DataFrame,
    classes: "pd.Index[str]",
    augment: AugmentSettings,
    seed: int,
) -> None:
    switched_on = ", ".join(f"{key} {value:g}" for key, value in augment.model_dump().items() if value)
    if not switched_on:
        writer.skip("augmentation")
        return
    random = np.random.default_rng(seed)
    shown = natural_order(classes.tolist())[:_AUGMENTED]
    drawn = images.loc[np.concatenate([_draw(train.labels, label, 1, random) for label in shown]), ["class", "file"]]
    mixed = _MIXED_DRAWS if augment.mixup or augment.cutmix else 0
    writer.add_images(
        "augmentation",
        augmentation(train.images[drawn.index], drawn["class"].tolist(), augment, _DRAWS, mixed, seed),
        f"{len(drawn)} images, each beside {_DRAWS} changed ones",
        draws=_DRAWS,
        switched_on=switched_on,
        mixed=writer.text("augmentation", "mixed") if mixed else "",
    )
    writer.table("augmentation", drawn)


def _add_colours(writer: FigureWriter, pixels: PixelStatistics) -> None:
    shown = colour_histogram(pixels.histogram)
    alt = f"Most pixels have level {pixels.histogram.sum(axis=0).argmax()} of 0 to 255"
    writer.add("colour_histogram", shown, alt, pixels=pixels.histogram[0].sum(), **_channel_means(pixels))
    writer.table("colour_histogram", pd.DataFrame(pixels.histogram.T, columns=CHANNELS).reset_index(names="level"))
    correlation = pd.DataFrame(pixels.correlation, CHANNELS, CHANNELS)
    pairs = combinations(range(len(CHANNELS)), 2)
    alike = (f"{CHANNELS[one]} and {CHANNELS[other]} {pixels.correlation[one, other]:.2f}" for one, other in pairs)
    writer.add("channel_correlation", channel_correlation(correlation), ", ".join(alike))
    writer.table("channel_correlation", correlation.reset_index(names="channel"))


def _add_mean_images(
    writer: FigureWriter, pixels: PixelStatistics, classes: "pd.Index[str]", counts: NDArray[np.int64]
) -> None:
    means = pixels.mean_images
    tiles = [Tile(means[label], classes[label]) for label in natural_order(classes.tolist())[:_MOST_CLASSES]]
    figure = image_grid(in_rows(tiles, _MEAN_IMAGES_PER_ROW), MEAN_IMAGE_SIDE)
    alt = f"A blurred image of each class: {', '.join(tile.caption for tile in tiles)}"
    writer.add_images("mean_images", figure, alt, first_classes=_first_classes(writer, classes))
    colours = pd.DataFrame(means.reshape(len(means), -1, 3).mean(axis=1), classes, CHANNELS)
    colours.insert(0, "images", counts)
    writer.table("mean_images", colours.reset_index())


def _add_measures(
    writer: FigureWriter, train: Split, images: pd.DataFrame, spreads: Mapping[str, pd.DataFrame]
) -> None:
    for measure, spread in spreads.items():
        medians, unit = spread["median"], writer.text(measure, "unit")
        low, high = images[measure].quantile([0.25, 0.75])
        writer.add(
            measure,
            measure_by_class(images[measure], train.labels, spread, unit),
            f"The middle half of all images lies between {low:.1f} and {high:.1f}, {unit}",
            lowest=medians.min(),
            lowest_class=medians.idxmin(),
            highest=medians.max(),
            highest_class=medians.idxmax(),
            meaning=writer.text(measure, "meaning"),
        )
        writer.table(measure, spread.reset_index())
        counts, edges = np.histogram(images[measure], bins=60)
        writer.table(f"{measure}_histogram", {"low": edges[:-1], "high": edges[1:], "images": counts})


def _add_outliers(
    writer: FigureWriter, train: Split, images: pd.DataFrame, spreads: Mapping[str, pd.DataFrame]
) -> dict[str, int]:
    """Add the images farthest beyond the fences of their class; returns how many lie beyond them, by measure."""
    tables, rows, row_labels = [], [], []
    for measure, spread in spreads.items():
        beyond = beyond_fences(images[measure], train.labels, spread).sort_values(kind="stable")
        for side, outlying in (("below", beyond[beyond < 0]), ("above", beyond[beyond > 0][::-1])):
            table = images.loc[outlying.index, ["file", "class", measure]].rename(columns={measure: "value"})
            tables.append(table.assign(measure=measure, beyond_fence_by=outlying))
            if len(table):
                farthest = table[:_OUTLIERS].itertuples()
                rows.append(
                    [_named(train.images[row], file, name, f"{value:.1f}") for row, file, name, value in farthest]
                )
                row_labels.append(f"{writer.text(measure, side)}\n({len(table):,} of them)")
    outliers = pd.concat(tables)
    writer.table("outliers", outliers[["measure", "file", "class", "value", "beyond_fence_by"]])
    if rows:
        figure = image_grid(rows, tile_side(train.images) * 3 // 2, row_labels=row_labels)
        alt = f"Images in rows: {', '.join(label.replace(chr(10), ' ') for label in row_labels)}"
        writer.add_images("outliers", figure, alt, shown=_OUTLIERS)
    else:
        writer.skip("outliers")
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
    rows: list[Sequence[Tile]] = []
    row_labels: list[str] = []
    for finding in found:
        pairs = [
            [_named(splits[one.split].images[one.row], one.name, one.class_name, one.split) for one in pair]
            for group in finding.groups
            if (pair := _pair([image for image in group if image.split in splits], finding.kind))
        ][:_OUTLIERS]
        if pairs:
            rows += zip(*pairs, strict=True)
            row_labels += [_REPEATS[finding.kind], "its twin"]
    findings = " ".join(finding.sentence for finding in found)
    if rows:
        figure = image_grid(rows, tile_side(splits["train"].images) * 3 // 2, row_labels=row_labels)
        alt = f"{sum(map(len, rows)) // 2} pairs of images, one below the other"
        writer.add_images("duplicates", figure, alt, findings=findings)
    elif found:
        writer.skip("duplicates_in_test", findings=findings)
    else:
        writer.skip("duplicates")


def _pair(images: Sequence[ImageRef], kind: Kind) -> tuple[ImageRef, ImageRef] | None:
    """The first of these images with the first of the others; of another split, where that is what was found."""
    across = kind in {"leakage", "near_leakage"}
    twins = (other for other in images[1:] if not across or other.split != images[0].split)
    return next(((images[0], twin) for twin in twins), None)


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


def _named(image: NDArray[np.uint8], file: str, class_name: str, note: str) -> Tile:
    return Tile(image, f"{PurePath(file).name}\n{class_name}\n{note}")


def _first_classes(writer: FigureWriter, classes: "pd.Index[str]") -> str:
    if len(classes) <= _MOST_CLASSES:
        return ""
    return writer.text("classes", "first", shown=_MOST_CLASSES, classes=len(classes))
