"""Whether a model is right as often as it says: reliability table and expected calibration error with interval."""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vit_vs_cnn.evaluation.clusters import Groups, count_draws, resampled

BINS = 15
_EDGES = np.linspace(0.0, 1.0, BINS + 1)
_RESAMPLES = 1000
_RESAMPLES_OF_PAIRS = 500

Answers = tuple[NDArray[np.float32], NDArray[np.bool_]]


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
    With `groups` these are resampled, not images; a single one says nothing of others, and the interval is 0 to 1.
    """
    if count_draws(len(labels), groups) < 2:
        return 0.0, 1.0
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


def calibration_error_difference(
    first: Answers, second: Answers, confidence: float, groups: Groups | None = None
) -> tuple[float, float, float]:
    """How much larger the mean calibration error of the first of two models is over C conditions, and the interval.

    Each model's answers are its confidences, float (C, N), and whether it is right, bool (C, N), of the same images:
    the bootstrap draws images, or `groups` (N,), with all that both made of them, and is the basic one. Of a single one
    the interval has no ends.
    """
    conditions, images = first[0].shape
    group = np.arange(images) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = np.concatenate([_gaps_by_group(*answers, group) for answers in (first, second)], axis=1)
    sums = np.column_stack([sums, np.bincount(group)])

    def difference(drawn: NDArray[np.float64]) -> float:
        errors = np.abs(drawn[:-1]).reshape(2, -1).sum(axis=1) / (conditions * drawn[-1])
        return float(errors[0] - errors[1])

    value = difference(sums.sum(axis=0))
    if len(sums) < 2:
        return value, -math.inf, math.inf
    resamples = resampled(sums, difference, _RESAMPLES_OF_PAIRS)
    low, high = np.quantile(resamples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return value, 2 * value - float(high), 2 * value - float(low)


def calibration_shares(confidences: NDArray[np.float32], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The part of each image in the calibration error of each of S trainings, (S, N): their mean is the error."""
    gaps, bin_of = confidences.astype(np.float64) - right, bins_of(confidences.astype(np.float64))
    signs = [np.sign(np.bincount(bins, gap, BINS))[bins] for bins, gap in zip(bin_of, gaps, strict=True)]
    shares: NDArray[np.float64] = gaps * np.array(signs)
    return shares


def _gaps_by_group(confidences: NDArray[np.float32], right: NDArray[np.bool_], group: Groups) -> NDArray[np.float64]:
    """The sum of confidence minus hits in each bin of each of C conditions for each of G groups, (G, C * BINS)."""
    conditions = len(confidences)
    sums = np.zeros((group.max() + 1, conditions, BINS))
    highest = confidences.astype(np.float64)
    np.add.at(sums, (group[None], np.arange(conditions)[:, None], bins_of(highest)), highest - right)
    return sums.reshape(len(sums), -1)


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
