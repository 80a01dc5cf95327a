"""Whether a model is right as often as it says: reliability table and expected calibration error with interval."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
    bin_of = _bin_of(confidence)
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
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], confidence: float
) -> tuple[float, float]:
    """The interval of the expected calibration error of probabilities (N, K), from 1,000 bootstrap resamples.

    The basic bootstrap (Davison & Hinkley 1997, section 5.2): chance alone separates confidence and accuracy, so the
    error of N images is too large, that of their resamples is once more, and the interval is corrected by as much.
    """
    highest, right = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels
    # The order of the images must not matter.
    order = np.lexsort((right, highest))
    gap, bin_of = (highest - right)[order], _bin_of(highest[order])
    draw, images = np.random.default_rng(0), len(labels)
    errors = np.empty(_RESAMPLES)
    for resample in range(_RESAMPLES):
        rows = draw.integers(0, images, images)
        errors[resample] = np.abs(np.bincount(bin_of[rows], weights=gap[rows], minlength=BINS)).sum() / images
    error = expected_calibration_error(reliability_table(probabilities, labels))
    low, high = np.quantile(errors, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(np.clip(2 * error - high, 0.0, error)), float(np.clip(2 * error - low, error, 1.0))


def _bin_of(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    # A softmax in float32 can exceed 1 by a rounding error: such an image belongs to the last bin.
    return np.clip(np.searchsorted(_EDGES, confidence, side="left") - 1, 0, BINS - 1)
