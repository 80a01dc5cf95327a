"""Numbers about raw pixels: colour, brightness, contrast and sharpness of every image, over a split in chunks."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options

Measure = Literal["brightness", "contrast", "sharpness"]

MEAN_IMAGE_SIDE = 128
_CHUNK_BYTES = 3 * 2**20
_MOST_WORKERS = 8  # each holds its own sums of all classes


@dataclass(frozen=True)
class PixelStatistics:
    """What the pixels of N images of K classes say, on the scale 0 to 255.

    `histogram` int64 (3, 256): pixels per level, per channel (RGB).
    `correlation` float64 (3, 3): Pearson's, of the channels over all pixels; NaN for a constant channel.
    `mean_images` uint8 (K, S, S, 3): S is the images' side, `MEAN_IMAGE_SIDE` at most; black for an empty class.
    `measures`, float32 (N,) each: brightness, the mean of the grey levels; contrast, their standard deviation;
    sharpness, the mean magnitude of their gradient, by Sobel, in levels per pixel.
    """

    histogram: NDArray[np.int64]
    correlation: NDArray[np.float64]
    mean_images: NDArray[np.uint8]
    measures: dict[Measure, NDArray[np.float32]]


@dataclass(frozen=True)
class Quartiles:
    """Tukey's summary of a measure within each class, arrays (K,); NaN for a class without images.

    The fences stand 1.5 interquartile ranges beyond the quartiles. The whiskers are the outermost values within them.
    """

    q1: NDArray[np.float64]
    median: NDArray[np.float64]
    q3: NDArray[np.float64]
    low_whisker: NDArray[np.float64]
    high_whisker: NDArray[np.float64]
    low_fence: NDArray[np.float64]
    high_fence: NDArray[np.float64]

    def excess(self, values: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """How far each value lies beyond its class's fences: below them negative, above positive, else 0."""
        return np.minimum(values - self.low_fence[labels], 0) + np.maximum(values - self.high_fence[labels], 0)


class _Tally:
    """Sums over the images that one thread has seen."""

    def __init__(self, num_classes: int, image_side: int) -> None:
        side = min(image_side, MEAN_IMAGE_SIDE)
        self.histogram = np.zeros((3, 256), np.int64)
        self.products = np.zeros((3, 3))
        self.class_sums = np.zeros((num_classes, side, side, 3), np.uint32)

    def add(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        tall = _tall(images)
        # OpenCV counts in float32, exact up to 2**24 pixels: a chunk stays far below.
        levels = [cv2.calcHist([tall], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
        self.histogram += np.stack(levels).astype(np.int64)
        wide = tall.reshape(-1, 3).astype(np.float64)
        self.products += wide.T @ wide
        small = _shrunk(images, self.class_sums.shape[1])
        for label in np.unique(labels):
            self.class_sums[label] += small[labels == label].sum(axis=0, dtype=np.uint32)


def pixel_statistics(
    images: NDArray[np.uint8], labels: NDArray[np.int64], num_classes: int, workers: int | None = None
) -> PixelStatistics:
    """Statistics of all `images`, uint8 (N, H, W, 3), exact and the same with any number of `workers`.

    Images may be memory-mapped: each of the threads, by default one per core up to eight, holds one small chunk.
    """
    count, side = len(images), images.shape[1]
    workers = workers or min(os.cpu_count() or 1, _MOST_WORKERS)
    chunk = max(1, _CHUNK_BYTES // images[0].nbytes)
    measures: dict[Measure, NDArray[np.float32]] = {
        name: np.empty(count, np.float32) for name in ("brightness", "contrast", "sharpness")
    }

    def tally(first: int, last: int) -> _Tally:
        sums = _Tally(num_classes, side)
        for start in range(first, last, chunk):
            part = slice(start, min(start + chunk, last))
            # A copy of mapped pages, so that each pixel comes from the disk once.
            pixels = np.array(images[part])
            sums.add(pixels, labels[part])
            for name, values in zip(measures, _measure(pixels), strict=True):
                measures[name][part] = values
            bar.update(part.stop - part.start)
        return sums

    bounds = np.linspace(0, count, workers + 1).astype(int)
    with tqdm(total=count, desc="pixels", unit=" images", **bar_options()) as bar, ThreadPoolExecutor(workers) as pool:
        tallies = list(pool.map(tally, bounds[:-1], bounds[1:]))
    histogram = np.sum([part.histogram for part in tallies], axis=0)
    class_sums = np.sum([part.class_sums for part in tallies], axis=0)
    class_counts = np.maximum(np.bincount(labels, minlength=num_classes), 1)
    return PixelStatistics(
        histogram=histogram,
        correlation=_correlation(histogram, np.sum([part.products for part in tallies], axis=0)),
        mean_images=np.round(class_sums / class_counts[:, None, None, None]).astype(np.uint8),
        measures=measures,
    )


def quartiles(values: NDArray[np.float32], labels: NDArray[np.int64], num_classes: int) -> Quartiles:
    """Quartiles, fences and whiskers of `values` (N,) within each class."""
    rows = np.full((7, num_classes), np.nan)
    for label in np.unique(labels):
        own = values[labels == label].astype(np.float64)
        q1, median, q3 = np.quantile(own, [0.25, 0.5, 0.75])
        low_fence, high_fence = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
        within = own[(own >= low_fence) & (own <= high_fence)]
        rows[:, label] = q1, median, q3, within.min(), within.max(), low_fence, high_fence
    return Quartiles(*rows)


def _measure(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Brightness, contrast and sharpness of a chunk of images, float32 (N,) each."""
    count, height, width, _ = images.shape
    grey = cv2.cvtColor(_tall(images), cv2.COLOR_RGB2GRAY)
    # The Sobel kernel weighs four differences over two pixels twice: an eighth makes it levels per pixel.
    across = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=1 / 8)
    gradient = cv2.magnitude(across, down).reshape(count, height, width)
    # The border is left out: there the kernel would reach into the next image.
    sharpness = gradient[:, 1:-1, 1:-1].mean(axis=(1, 2))
    levels = grey.reshape(count, -1).astype(np.float32)
    return levels.mean(axis=1), levels.std(axis=1), sharpness


def _tall(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images of a chunk standing on one another, (N·H, W, 3): one call of OpenCV instead of one for each."""
    return images.reshape(-1, *images.shape[2:])


def _shrunk(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if images.shape[1] == side:
        return images
    return np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images])


def _correlation(histogram: NDArray[np.int64], products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation of the channels from their histograms and the sums of their products (3, 3)."""
    # In whole numbers of any size (Python's, hence the object arrays): a constant channel has a variance of exactly 0.
    total = int(histogram[0].sum())
    sums = (histogram @ np.arange(256)).astype(object)
    covariance = (total * products.astype(np.int64).astype(object) - np.outer(sums, sums)).astype(np.float64)
    deviation = np.sqrt(np.diag(covariance))
    with np.errstate(invalid="ignore"):
        return np.asarray(covariance / np.outer(deviation, deviation))
