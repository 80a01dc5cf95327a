"""The paired differences of the metrics that models may be chosen by, beside scikit-learn and simulation."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from vit_vs_cnn.config.gate import SelectBy
from vit_vs_cnn.evaluation.paired_difference import POWER, images_needed, paired_difference
from vit_vs_cnn.evaluation.results import Predictions
from vit_vs_cnn.evaluation.significance import tango_score

CLASSES = 4
SHARES = [0.55, 0.3, 0.12, 0.03]


def normalised(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = probabilities.astype(np.float64)
    return exact / exact.sum(axis=1, keepdims=True)


METRICS = {
    "accuracy": lambda found: accuracy_score(found.labels, found.predicted),
    "balanced_accuracy": lambda found: balanced_accuracy_score(found.labels, found.predicted),
    "macro_f1": lambda found: f1_score(found.labels, found.predicted, average="macro"),
    "nll": lambda found: -log_loss(found.labels, normalised(found.probabilities), labels=range(CLASSES)),
}


def predictions(labels: NDArray[np.int64], seed: int, noise: float = 1.0) -> Predictions:
    """A model that is sure of the right class up to `noise`."""
    logits = 2.5 * np.eye(CLASSES)[labels] + noise * np.random.default_rng(seed).normal(size=(len(labels), CLASSES))
    exponentials = np.exp(logits)
    probabilities = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return Predictions((), labels, probabilities.argmax(axis=1), probabilities)


def labels_of(images: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).choice(CLASSES, size=images, p=SHARES)


@pytest.mark.parametrize("metric", METRICS)
def test_the_difference_is_that_of_the_metrics_and_positive_where_the_first_is_better(metric: SelectBy) -> None:
    labels = labels_of(800)
    good, bad = predictions(labels, 1), predictions(labels, 2, noise=2.0)
    found = paired_difference(metric, good, bad, 0.95)
    assert found.value == pytest.approx(METRICS[metric](good) - METRICS[metric](bad), abs=1e-6)
    assert 0 < found.low < found.value < found.high
    mirrored = paired_difference(metric, bad, good, 0.95)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_is_about_that_of_drawing_the_images_many_times(metric: SelectBy) -> None:
    labels, rng = labels_of(1500), np.random.default_rng(3)
    first, second = predictions(labels, 1), predictions(labels, 2)
    differences = []
    for _ in range(300):
        # Within the classes, whose numbers of images are no chance.
        drawn = np.concatenate(
            [rng.choice(np.flatnonzero(labels == label), (labels == label).sum()) for label in range(4)]
        )
        one, other = (
            Predictions((), labels[drawn], found.predicted[drawn], found.probabilities[drawn])
            for found in (first, second)
        )
        differences.append(METRICS[metric](one) - METRICS[metric](other))
    found = paired_difference(metric, first, second, 0.95)
    assert (found.high - found.low) / (2 * norm.ppf(0.975)) == pytest.approx(np.std(differences), rel=0.2)


@pytest.mark.parametrize("metric", METRICS)
def test_a_class_without_images_counts_for_nothing(metric: SelectBy) -> None:
    labels = np.minimum(labels_of(500), CLASSES - 2)
    first, second = predictions(labels, 1), predictions(labels, 2)
    assert (first.predicted == CLASSES - 1).any()
    found = paired_difference(metric, first, second, 0.95)
    assert np.isfinite([found.low, found.high]).all()
    if metric == "balanced_accuracy":
        assert found.value == pytest.approx(
            np.mean(
                [first.correct[labels == label].mean() - second.correct[labels == label].mean() for label in range(3)]
            )
        )


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_two_that_no_image_divides_still_have_an_interval_of_some_width(metric: SelectBy) -> None:
    found = paired_difference(metric, *[predictions(labels_of(400), 1)] * 2, 0.95)
    assert found.low == pytest.approx(-found.high)
    assert found.high > 0.009


@pytest.mark.parametrize("margin", [0.01, 0.05])
@pytest.mark.parametrize("share", [0.0, 0.005, 0.02, 0.1])
def test_on_as_many_images_as_it_says_an_equal_model_passes(margin: float, share: float) -> None:
    images = images_needed(share, margin, 0.95, of_shares=True)
    draws = np.random.default_rng(0).multinomial(images, [share / 2, share / 2, 1 - share], size=4000)
    passes = tango_score(draws[:, 0], draws[:, 1], images, -margin) >= norm.ppf(0.975)
    assert passes.mean() >= POWER - 0.02
    fewer = images_needed(share, margin, 0.95, of_shares=True) // 2
    draws = np.random.default_rng(0).multinomial(fewer, [share / 2, share / 2, 1 - share], size=4000)
    assert (tango_score(draws[:, 0], draws[:, 1], fewer, -margin) >= norm.ppf(0.975)).mean() < 0.7
