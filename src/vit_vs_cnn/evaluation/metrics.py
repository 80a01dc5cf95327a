"""Quality on the test split, from class probabilities and labels."""

import math
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.evaluation.calibration import (
    BINS,
    bins_of,
    calibration_error_interval,
    expected_calibration_error,
    reliability_table,
)
from vit_vs_cnn.evaluation.clusters import Groups, effective_images, quantile
from vit_vs_cnn.evaluation.results import Evaluation, Metrics, Predictions, Views

Probabilities = NDArray[np.float32]
Labels = NDArray[np.int64]

# Below this part of the way from chance to perfect, next to nothing was learned.
_NEAR_CHANCE = 0.2


def evaluate(
    probabilities: Probabilities,
    test: Split,
    classes: tuple[str, ...],
    confidence: float,
    uncalibrated: Probabilities | None = None,
    peak_memory_mb: float | None = None,
    duplicates: Collection[int] = (),
    views: Views | None = None,
) -> Evaluation:
    """Compute every metric of the probabilities (N, K) of the test images, with intervals at `confidence`.

    `uncalibrated` are the network's own probabilities, where `probabilities` have a temperature. `duplicates` are the
    rows of images that train has too. `peak_memory_mb` and `views` are passed on.
    """
    if uncalibrated is None:
        uncalibrated = probabilities
    labels = test.labels
    predictions = Predictions(
        test.names, labels, probabilities.argmax(axis=1), probabilities, test.groups, test.digests
    )
    per_class = per_class_scores(labels, predictions.predicted, classes)
    correct, groups = int(predictions.correct.sum()), predictions.group_codes
    reliability, before = (_reliability(of, labels, groups, confidence) for of in (probabilities, uncalibrated))
    without = np.delete(predictions.correct, list(duplicates))
    low, high = share_interval(predictions.correct, groups, confidence)
    error_low, error_high = calibration_error_interval(probabilities, labels, confidence, groups)
    before_low, before_high = calibration_error_interval(uncalibrated, labels, confidence, groups)
    metrics = Metrics(
        accuracy=correct / len(labels),
        accuracy_low=low,
        accuracy_high=high,
        accuracy_without_duplicates=float(without.mean()) if len(without) else None,
        duplicates_in_train=len(duplicates),
        top5_accuracy=top_k_accuracy(probabilities, labels, 5) if len(classes) > 5 else None,
        balanced_accuracy=float(per_class["recall"].mean()),
        macro_f1=float(per_class["f1"].mean()),
        negative_log_likelihood=negative_log_likelihood(probabilities, labels),
        brier_score=brier_score(probabilities, labels),
        expected_calibration_error=expected_calibration_error(reliability),
        expected_calibration_error_low=error_low,
        expected_calibration_error_high=error_high,
        uncalibrated_negative_log_likelihood=negative_log_likelihood(uncalibrated, labels),
        uncalibrated_expected_calibration_error=expected_calibration_error(before),
        uncalibrated_expected_calibration_error_low=before_low,
        uncalibrated_expected_calibration_error_high=before_high,
        roc_auc_ovr=roc_auc_ovr(probabilities, labels),
        images=len(labels),
        groups=None if groups is None else len(np.unique(groups)),
        confidence=confidence,
        peak_memory_mb=peak_memory_mb,
        views=views,
    )
    confusion = confusion_matrix(labels, predictions.predicted, len(classes))
    both = reliability.join(before.drop(columns=["bin_low", "bin_high"]).add_prefix("uncalibrated_"))
    return Evaluation(classes, metrics, per_class, confusion, both, predictions)


def _reliability(
    probabilities: Probabilities, labels: Labels, groups: Groups | None, confidence: float
) -> pd.DataFrame:
    """`reliability_table` with the interval of the accuracy in each bin that has images."""
    correct = probabilities.argmax(axis=1) == labels
    bin_of, intervals = bins_of(probabilities.max(axis=1).astype(np.float64)), np.full((BINS, 2), np.nan)
    for filled in np.unique(bin_of):
        rows = bin_of == filled
        intervals[filled] = share_interval(correct[rows], None if groups is None else groups[rows], confidence)
    return reliability_table(probabilities, labels).assign(accuracy_low=intervals[:, 0], accuracy_high=intervals[:, 1])


def is_near_chance(accuracy: float, classes: int) -> bool:
    """Whether an accuracy is hardly better than that of guesses at one of so many classes."""
    return accuracy < 1 / classes + _NEAR_CHANCE * (1 - 1 / classes)


def accuracy_interval(correct: int, images: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of an accuracy (Wilson 1927, JASA 22); it holds near 100 % and for few images too."""
    return _wilson(correct / images, images, confidence)


def share_interval(correct: NDArray[np.bool_], groups: Groups | None, confidence: float) -> tuple[float, float]:
    """Wilson's interval of the share of the images that are `correct` (N,); by groups, of their effective number."""
    return _wilson(float(correct.mean()), effective_images(correct, groups, confidence), confidence)


def _wilson(share: float, images: float, confidence: float) -> tuple[float, float]:
    squared = quantile(confidence, None) ** 2
    middle = (share + squared / (2 * images)) / (1 + squared / images)
    half_width = math.sqrt(squared * (share * (1 - share) + squared / (4 * images)) / images) / (1 + squared / images)
    # Not beyond the share itself, by a rounding error, where it is 0 or 1.
    return max(0.0, min(share, middle - half_width)), min(1.0, max(share, middle + half_width))


def per_class_scores(labels: Labels, predicted: Labels, classes: Sequence[str]) -> pd.DataFrame:
    """Columns class, precision, recall, f1, images.

    The precision of a class that was never predicted is 0. A class without test images has no scores (NaN), so it
    counts in no mean.
    """
    confusion = confusion_matrix(labels, predicted, len(classes))
    hits, images, predictions = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    scores = pd.DataFrame(
        {
            "class": list(classes),
            "precision": hits / np.maximum(predictions, 1),
            "recall": hits / np.maximum(images, 1),
            "f1": 2 * hits / np.maximum(images + predictions, 1),
            "images": images,
        }
    )
    scores.loc[images == 0, ["precision", "recall", "f1"]] = np.nan
    return scores


def confusion_matrix(labels: Labels, predicted: Labels, num_classes: int) -> NDArray[np.int64]:
    """Count the images of each true class (row) by their predicted class (column), int64 (K, K)."""
    # scikit-learn's own takes a second to import, with all that it brings.
    counts = np.bincount(num_classes * labels + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def top_k_accuracy(probabilities: Probabilities, labels: Labels, k: int) -> float:
    """Share of the images whose class is among the `k` most probable.

    Of equal probabilities the first classes win, as in argmax; in scikit-learn's top_k_accuracy_score the last ones do.
    """
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def negative_log_likelihood(probabilities: Probabilities, labels: Labels) -> float:
    """Mean of −ln(probability of the true class), in nats."""
    return float(log_losses(probabilities, labels).mean())


def log_losses(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    """−ln(probability of the true class) of each image, in nats, float64 (N,).

    A probability that float32 rounded to 0 counts as its smallest normal number, so one image costs at most 87.3.
    scikit-learn's log_loss would clip at 1.2e-7, which a confident network falls short of.
    """
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses: NDArray[np.float64] = -np.log(np.maximum(of_truth, np.finfo(np.float32).tiny))
    return losses


def brier_score(probabilities: Probabilities, labels: Labels) -> float:
    """Squared distance of the probabilities from the truth, summed over classes, mean over images: 0 to 2.

    Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    distance = probabilities.astype(np.float64)
    distance[np.arange(len(labels)), labels] -= 1.0
    return float(np.square(distance).sum(axis=1).mean())


def roc_auc_ovr(probabilities: Probabilities, labels: Labels) -> float | None:
    """Mean over the classes of the area under the ROC curve of the class against all others.

    Classes without a test image do not count; None where all images are of one class.
    """
    present = np.unique(labels)
    if len(present) < 2:
        return None
    return float(np.mean([_roc_auc(labels == label, probabilities[:, label]) for label in present]))


def _roc_auc(positive: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    """The share of pairs of a positive and a negative image in which the positive one has the higher score.

    Ties count half (Hanley & McNeil 1982, Radiology 143:29–36).
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    ones, zeros = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))
