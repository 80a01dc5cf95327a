"""Statistics of raw pixels: colour, brightness, contrast and sharpness of every image, computed in chunks."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options

MEASURES = ("brightness", "contrast", "sharpness")
MEAN_IMAGE_SIDE = 128
_CHUNK_BYTES = 3 * 2**20
_MOST_WORKERS = 8  # each holds its own sums of all classes


@dataclass(frozen=True)
class PixelStatistics:
    """Statistics of the pixels of N images of K classes, on the scale 0 to 255.

    `histogram` int64 (3, 256): pixels per level, per channel (RGB).
    `correlation` float64 (3, 3): Pearson's, of the channels over all pixels; NaN for a constant channel.
    `mean_images` uint8 (K, S, S, 3): S is the images' side, `MEAN_IMAGE_SIDE` at most; black for an empty class.
    `measures`, N rows of float32: brightness, the mean of the grey levels; contrast, their standard deviation;
    sharpness, the mean magnitude of their gradient, by Sobel, in levels per pixel.
    """

    histogram: NDArray[np.int64]
    correlation: NDArray[np.float64]
    mean_images: NDArray[np.uint8]
    measures: pd.DataFrame


class _Sums:
    """Sums over the images that one thread has seen."""

    def __init__(self, num_classes: int, image_side: int) -> None:
        side = min(image_side, MEAN_IMAGE_SIDE)
        self.histogram = np.zeros((3, 256), np.int64)
        self.products = np.zeros((3, 3))
        self.images = np.zeros((num_classes, side, side, 3), np.uint32)

    def add(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        stacked = _stacked(images)
        # OpenCV counts in float32, exact up to 2**24 pixels: a chunk stays far below.
        levels = [cv2.calcHist([stacked], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
        self.histogram += np.stack(levels).astype(np.int64)
        pixels = stacked.reshape(-1, 3).astype(np.float64)
        self.products += pixels.T @ pixels
        side = self.images.shape[1]
        if images.shape[1] != side:
            images = np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images])
        for label in np.unique(labels):
            self.images[label] += images[labels == label].sum(axis=0, dtype=np.uint32)


def pixel_statistics(
    images: NDArray[np.uint8], labels: NDArray[np.int64], num_classes: int, workers: int | None = None
) -> PixelStatistics:
    """Compute the statistics of all `images`, uint8 (N, H, W, 3), exactly: the number of `workers` changes nothing.

    Images may be memory-mapped: each of the threads, by default one per core up to eight, holds one small chunk and its
    own sums of all classes.
    """
    workers = workers or min(os.cpu_count() or 1, _MOST_WORKERS)
    chunk = max(1, _CHUNK_BYTES // images[0].nbytes)
    measures = np.empty((len(images), len(MEASURES)), np.float32)

    def sum_up(first: int, last: int) -> _Sums:
        sums = _Sums(num_classes, images.shape[1])
        for start in range(first, last, chunk):
            part = slice(start, min(start + chunk, last))
            # A copy of mapped pages, so that each pixel comes from the disk once.
            pixels = np.array(images[part])
            sums.add(pixels, labels[part])
            measures[part] = _measure(pixels)
            bar.update(len(pixels))
        return sums

    bounds = np.linspace(0, len(images), workers + 1).astype(int)
    with (
        tqdm(total=len(images), desc="pixels", unit=" images", **bar_options()) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        parts = list(pool.map(sum_up, bounds[:-1], bounds[1:]))
    histogram = np.sum([part.histogram for part in parts], axis=0)
    class_counts = np.maximum(np.bincount(labels, minlength=num_classes), 1)
    # One after the other: stacked first, they would be in memory twice.
    mean_images = sum(part.images for part in parts) / class_counts[:, None, None, None]
    return PixelStatistics(
        histogram=histogram,
        correlation=_correlation(histogram, np.sum([part.products for part in parts], axis=0)),
        mean_images=np.round(mean_images).astype(np.uint8),
        measures=pd.DataFrame(measures, columns=list(MEASURES)),
    )


def spread_by_class(values: "pd.Series[float]", labels: NDArray[np.int64], num_classes: int) -> pd.DataFrame:
    """Tukey's summary of `values` (N,) within each class: a row per class, NaN for a class without images.

    Columns q1, median, q3, low_whisker, high_whisker, low_fence, high_fence. The fences are 1.5 interquartile ranges
    beyond the quartiles, the whiskers the outermost values within the fences.
    """
    values = values.astype(float)
    spread = values.groupby(labels).quantile(np.array([0.25, 0.5, 0.75])).unstack().reindex(range(num_classes))
    spread.columns = pd.Index(["q1", "median", "q3"])
    reach = 1.5 * (spread["q3"] - spread["q1"])
    fences = pd.DataFrame({"low_fence": spread["q1"] - reach, "high_fence": spread["q3"] + reach})
    within = values.where(beyond_fences(values, labels, fences) == 0)
    whiskers = within.groupby(labels).agg(low_whisker="min", high_whisker="max")
    return spread.join(whiskers).join(fences)


def beyond_fences(values: "pd.Series[float]", labels: NDArray[np.int64], spread: pd.DataFrame) -> "pd.Series[float]":
    """How far each value lies beyond its class's fences: negative below them, positive above, else 0."""
    low_fence, high_fence = (spread[fence].to_numpy()[labels] for fence in ("low_fence", "high_fence"))
    return (values - low_fence).clip(upper=0) + (values - high_fence).clip(lower=0)


def _measure(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The `MEASURES` of a chunk of images, float32 (N, 3)."""
    count, height, width, _ = images.shape
    grey = cv2.cvtColor(_stacked(images), cv2.COLOR_RGB2GRAY)
    # The Sobel kernel weighs four differences over two pixels twice: an eighth makes it levels per pixel.
    across = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=1 / 8)
    # NumPy's root, which is the same everywhere: the last bit of cv2.magnitude depends on how memory is aligned.
    gradient = np.sqrt(across * across + down * down).reshape(count, height, width)
    # Without the border, where the kernel would reach into the next image.
    sharpness = gradient[:, 1:-1, 1:-1].mean(axis=(1, 2))
    levels = grey.reshape(count, -1).astype(np.float32)
    return np.stack([levels.mean(axis=1), levels.std(axis=1), sharpness], axis=1)


def _stacked(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images of a chunk on top of each other, (N·H, W, 3): one call of OpenCV instead of one for each."""
    return images.reshape(-1, *images.shape[2:])


def _correlation(histogram: NDArray[np.int64], products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation of the channels from their histograms and the sums of their products (3, 3)."""
    # In whole numbers of any size (Python's, hence the object arrays): a constant channel has a variance of exactly 0.
    total = int(histogram[0].sum())
    sums = (histogram @ np.arange(256)).astype(object)
    covariance = (total * products.astype(np.int64).astype(object) - np.outer(sums, sums)).astype(np.float64)
    deviation = np.sqrt(np.diag(covariance))
    with np.errstate(invalid="ignore"):
        return np.asarray(covariance / np.outer(deviation, deviation))
