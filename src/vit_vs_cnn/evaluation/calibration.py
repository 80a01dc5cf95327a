"""Whether a model is right as often as it says: reliability table and expected calibration error with interval."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vit_vs_cnn.evaluation.clusters import Groups, resampled

BINS = 15
_EDGES = np.linspace(0.0, 1.0, BINS + 1)
_RESAMPLES = 1000


def reliability_table(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> pd.DataFrame:
    """Images, mean confidence and accuracy in 15 bins of equal width over the confidence, empty bins included.

    The confidence of an image is its highest probability. A bin holds its upper edge, not its lower one. From
    probabilities (N, K) and labels (N,); columns bin_low, bin_high, images, confidence, accuracy.
    Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bin_of = bins_of(confidence)
    images = np.bincount(bin_of, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(bin_of, weights=confidence, minlength=BINS) / images
        accuracy = np.bincount(bin_of, weights=right, minlength=BINS) / images
    return pd.DataFrame(
        {
            "bin_low": _EDGES[:-1],
            "bin_high": _EDGES[1:],
            "images": images,
            "confidence": mean_confidence,
            "accuracy": accuracy,
        }
    )


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean distance between confidence and accuracy over the bins, weighted by their images; 0 is perfect."""
    gap = (table["confidence"] - table["accuracy"]).abs()
    return float((gap * table["images"]).sum() / table["images"].sum())


def calibration_error_interval(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], confidence: float, groups: Groups | None = None
) -> tuple[float, float]:
    """The interval of the expected calibration error of probabilities (N, K), from 1,000 bootstrap resamples.

    The basic bootstrap (Davison & Hinkley 1997, section 5.2): chance alone separates confidence and accuracy, so the
    error of N images is too large, that of their resamples is once more, and the interval is corrected by as much.
    With `groups` these are resampled, not images.
    """
    highest, right = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels
    # The order of the images must not matter.
    order = np.lexsort((right, highest))
    gap, bin_of = (highest - right)[order], bins_of(highest[order])
    if groups is None:
        errors = _errors_of_resampled_images(gap, bin_of)
    else:
        errors = _errors_of_resampled_groups(gap, bin_of, groups[order])
    error = expected_calibration_error(reliability_table(probabilities, labels))
    low, high = np.quantile(errors, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(np.clip(2 * error - high, 0.0, error)), float(np.clip(2 * error - low, error, 1.0))


def _errors_of_resampled_images(gap: NDArray[np.float64], bin_of: NDArray[np.int64]) -> NDArray[np.float64]:
    draw, images = np.random.default_rng(0), len(gap)
    errors = np.empty(_RESAMPLES)
    for resample in range(_RESAMPLES):
        rows = draw.integers(0, images, images)
        errors[resample] = np.abs(np.bincount(bin_of[rows], weights=gap[rows], minlength=BINS)).sum() / images
    return errors


def _errors_of_resampled_groups(
    gap: NDArray[np.float64], bin_of: NDArray[np.int64], groups: Groups
) -> NDArray[np.float64]:
    """The errors of as many groups, drawn with replacement, from each group's gaps by bin and its images."""
    _, group = np.unique(groups, return_inverse=True)
    sums = np.zeros((group.max() + 1, BINS + 1))
    np.add.at(sums, (group, bin_of), gap)
    sums[:, BINS] = np.bincount(group)
    return resampled(sums, lambda drawn: float(np.abs(drawn[:BINS]).sum() / drawn[BINS]), _RESAMPLES)


def bins_of(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each confidence (N,), int64 (N,)."""
    # A softmax in float32 can exceed 1 by a rounding error: such an image belongs to the last bin.
    return np.clip(np.searchsorted(_EDGES, confidence, side="left") - 1, 0, BINS - 1)
