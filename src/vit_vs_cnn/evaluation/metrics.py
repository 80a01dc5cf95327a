"""Quality on the test split, from class probabilities and labels."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.evaluation.calibration import expected_calibration_error, reliability_table
from vit_vs_cnn.evaluation.results import Cost, Evaluation, Metrics, Predictions

Probabilities = NDArray[np.float32]
Labels = NDArray[np.int64]


def evaluate(
    probabilities: Probabilities, test: Split, classes: tuple[str, ...], confidence: float, cost: Cost
) -> Evaluation:
    """Everything that the probabilities (N, K) of the test images tell, with intervals at `confidence`."""
    labels, predicted = test.labels, probabilities.argmax(axis=1)
    confusion = confusion_counts(labels, predicted, len(classes))
    per_class = per_class_scores(confusion, classes)
    reliability = reliability_table(probabilities, labels)
    right = int((predicted == labels).sum())
    low, high = accuracy_interval(right, len(labels), confidence)
    metrics = Metrics(
        accuracy=right / len(labels),
        accuracy_low=low,
        accuracy_high=high,
        top5_accuracy=top_k_accuracy(probabilities, labels, 5) if len(classes) > 5 else None,
        macro_f1=float(per_class["f1"].mean()),
        negative_log_likelihood=negative_log_likelihood(probabilities, labels),
        brier_score=brier_score(probabilities, labels),
        expected_calibration_error=expected_calibration_error(reliability),
        roc_auc_ovr=roc_auc_ovr(probabilities, labels),
        images=len(labels),
        confidence=confidence,
    )
    predictions = Predictions(test.names, labels, predicted, probabilities)
    return Evaluation(classes, metrics, cost, per_class, confusion, reliability, predictions)


def accuracy_interval(right: int, images: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of an accuracy (Wilson 1927, JASA 22); it holds near 100 % and for few images too."""
    interval = binomtest(right, images).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def top_k_accuracy(probabilities: Probabilities, labels: Labels, k: int) -> float:
    """Share of the images whose class is among the `k` most probable; of equals the first classes win."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def confusion_counts(labels: Labels, predicted: Labels, num_classes: int) -> NDArray[np.int64]:
    """Counts int64 (K, K): rows are the true classes, columns the predicted ones."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_scores(confusion: NDArray[np.int64], classes: Sequence[str]) -> pd.DataFrame:
    """Columns class, precision, recall, f1, images.

    The precision of a class that was never predicted is 0. A class without test images has no scores (NaN), so it
    counts in no mean.
    """
    hits, images, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    scores = {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(images, 1),
        "f1": 2 * hits / np.maximum(images + predicted, 1),
    }
    measured = {name: np.where(images > 0, values, np.nan) for name, values in scores.items()}
    return pd.DataFrame({"class": list(classes), **measured, "images": images})


def negative_log_likelihood(probabilities: Probabilities, labels: Labels) -> float:
    """Mean of −ln(probability of the true class), in nats.

    What float32 rounded to nothing counts as its smallest normal number, so one image costs at most 87.3.
    """
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(of_truth, np.finfo(np.float32).tiny)).mean())


def brier_score(probabilities: Probabilities, labels: Labels) -> float:
    """Squared distance of the probabilities from the truth, summed over classes, mean over images: 0 to 2.

    Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    distance = probabilities.astype(np.float64)
    distance[np.arange(len(labels)), labels] -= 1.0
    return float(np.square(distance).sum(axis=1).mean())


def roc_auc_ovr(probabilities: Probabilities, labels: Labels) -> float | None:
    """Mean over the classes of the area under the ROC curve of the class against all others.

    Classes without a test image are left out; None where all images are of one class.
    """
    present = np.unique(labels)
    if len(present) < 2:
        return None
    return float(np.mean([roc_auc_score(labels == each, probabilities[:, each]) for each in present]))
