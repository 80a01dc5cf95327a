"""Whether a model is right as often as it says: reliability table and expected calibration error."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

BINS = 15


def reliability_table(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> pd.DataFrame:
    """Images, mean confidence and accuracy in 15 bins of equal width over the confidence, empty bins included.

    The confidence of an image is its highest probability. A bin holds its upper edge, not its lower one. From
    probabilities (N, K) and labels (N,); columns bin_low, bin_high, images, confidence, accuracy.
    Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, BINS + 1)
    # A softmax in float32 can exceed 1 by a rounding error: such an image belongs to the last bin.
    bin_of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    images = np.bincount(bin_of, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(bin_of, weights=confidence, minlength=BINS) / images
        accuracy = np.bincount(bin_of, weights=right, minlength=BINS) / images
    return pd.DataFrame(
        {
            "bin_low": edges[:-1],
            "bin_high": edges[1:],
            "images": images,
            "confidence": mean_confidence,
            "accuracy": accuracy,
        }
    )


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean distance between confidence and accuracy over the bins, weighted by their images; 0 is perfect."""
    gap = (table["confidence"] - table["accuracy"]).abs()
    return float((gap * table["images"]).sum() / table["images"].sum())
