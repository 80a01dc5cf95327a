"""Metrics against values computed by hand and against scikit-learn."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import (
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)

from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.evaluation.metrics import (
    accuracy_interval,
    brier_score,
    evaluate,
    negative_log_likelihood,
    per_class_scores,
    roc_auc_ovr,
    top_k_accuracy,
)
from vit_vs_cnn.evaluation.results import Evaluation

Drawn = tuple[NDArray[np.float32], NDArray[np.int64]]


def draw(images: int, classes: int, seed: int) -> Drawn:
    """Probabilities that know something of the labels; every class has an image where there are enough."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % classes)
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), labels] += 1.5
    weights = np.exp(logits)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32), labels


def evaluated(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> Evaluation:
    split = Split(np.zeros((len(labels), 1, 1, 3), np.uint8), labels, tuple(map(str, range(len(labels)))))
    classes = tuple(f"class {index}" for index in range(probabilities.shape[1]))
    return evaluate(probabilities, split, classes, 0.95)


def by_hand() -> Drawn:
    """Four images of three classes; the last two are wrong."""
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3]], np.float32)
    return probabilities, np.array([0, 1, 1, 2])


def test_metrics_by_hand() -> None:
    probabilities, labels = by_hand()
    result = evaluated(probabilities, labels)
    assert result.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert result.metrics.accuracy == 0.5
    # F1 of the classes: 2·1/(1+2), 2·1/(2+2), 0.
    assert result.metrics.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert result.metrics.negative_log_likelihood == pytest.approx(-np.log([0.7, 0.8, 0.3, 0.3]).mean())
    per_image = [0.09 + 0.04 + 0.01, 0.01 + 0.04 + 0.01, 0.25 + 0.49 + 0.04, 0.04 + 0.25 + 0.49]
    assert result.metrics.brier_score == pytest.approx(np.mean(per_image))
    # Confidences 0.7 (right), 0.8 (right), 0.5 twice (both wrong), in three bins.
    assert result.metrics.expected_calibration_error == pytest.approx((0.3 + 0.2 + 2 * 0.5) / 4)
    assert result.predictions.correct.tolist() == [True, True, False, False]


def test_metrics_agree_with_scikit_learn() -> None:
    probabilities, labels = draw(500, 7, seed=1)
    result = evaluated(probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    metrics = result.metrics
    assert metrics.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert metrics.negative_log_likelihood == pytest.approx(log_loss(labels, exact), rel=1e-6)
    assert metrics.brier_score == pytest.approx(brier_score_loss(labels, exact, scale_by_half=False), rel=1e-6)
    assert metrics.roc_auc_ovr == pytest.approx(roc_auc_score(labels, exact, multi_class="ovr"))
    assert metrics.top5_accuracy == pytest.approx(top_k_accuracy_score(labels, exact, k=5))
    assert (result.confusion == confusion_matrix(labels, predicted)).all()
    precision, recall, f1, images = precision_recall_fscore_support(labels, predicted)
    np.testing.assert_allclose(
        result.per_class[["precision", "recall", "f1", "images"]].to_numpy(float).T, [precision, recall, f1, images]
    )


# Brown, Cai & DasGupta 2001 discuss these ends; the values are Wilson's formula with z = 1.959964.
@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [(8, 10, 0.490162, 0.943318), (0, 10, 0.0, 0.277533), (10, 10, 0.722467, 1.0), (9432, 10000, 0.938490, 0.947569)],
)
def test_wilson_interval(right: int, images: int, low: float, high: float) -> None:
    z, share = 1.959964, right / images
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * math.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    assert (centre - half, centre + half) == pytest.approx((low, high), abs=1e-5)
    assert accuracy_interval(right, images, 0.95) == pytest.approx((low, high), abs=1e-5)


def test_a_higher_confidence_has_a_wider_interval() -> None:
    (low_90, high_90), (low_99, high_99) = accuracy_interval(80, 100, 0.9), accuracy_interval(80, 100, 0.99)
    assert low_99 < low_90 < 0.8 < high_90 < high_99


def test_top_5_is_there_for_more_than_five_classes_only() -> None:
    assert evaluated(*draw(30, 5, seed=0)).metrics.top5_accuracy is None
    assert evaluated(*draw(30, 6, seed=0)).metrics.top5_accuracy is not None


def test_of_equal_probabilities_the_first_classes_win_as_in_the_prediction() -> None:
    probabilities, labels = np.full((4, 4), 0.25, np.float32), np.arange(4)
    assert [top_k_accuracy(probabilities, labels, k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]
    assert evaluated(probabilities, labels).metrics.accuracy == 0.25


def test_accuracy_without_the_images_that_train_has_too() -> None:
    probabilities, labels = by_hand()
    split = Split(np.zeros((4, 1, 1, 3), np.uint8), labels, ("a", "b", "c", "d"))
    metrics = [
        evaluate(probabilities, split, ("x", "y", "z"), 0.95, duplicates=rows).metrics for rows in ((), (0, 1, 2))
    ]
    assert [found.accuracy for found in metrics] == [0.5, 0.5]
    assert [found.accuracy_without_duplicates for found in metrics] == [0.5, 0.0]
    assert [found.duplicates_in_train for found in metrics] == [0, 3]
    everything = evaluate(probabilities, split, ("x", "y", "z"), 0.95, duplicates=range(4)).metrics
    assert everything.accuracy_without_duplicates is None


def test_what_the_network_said_before_its_temperature_is_kept_beside() -> None:
    probabilities, labels = draw(300, 4, seed=3)
    softer = np.sqrt(probabilities) / np.sqrt(probabilities).sum(axis=1, keepdims=True)
    split = Split(np.zeros((300, 1, 1, 3), np.uint8), labels, tuple(map(str, range(300))))
    result = evaluate(probabilities, split, tuple("abcd"), 0.95, softer)
    before = evaluate(softer, split, tuple("abcd"), 0.95)
    metrics = result.metrics
    assert metrics.uncalibrated_negative_log_likelihood == before.metrics.negative_log_likelihood
    assert metrics.uncalibrated_expected_calibration_error == before.metrics.expected_calibration_error
    assert metrics.negative_log_likelihood == evaluated(probabilities, labels).metrics.negative_log_likelihood
    error_low, error_high = metrics.expected_calibration_error_low, metrics.expected_calibration_error_high
    assert error_low is not None
    assert error_high is not None
    assert error_low <= metrics.expected_calibration_error <= error_high
    for end in ("_low", "_high"):
        measured = getattr(before.metrics, f"expected_calibration_error{end}")
        assert getattr(metrics, f"uncalibrated_expected_calibration_error{end}") == measured
    columns = ["images", "confidence", "accuracy", "accuracy_low", "accuracy_high"]
    own = result.reliability[[f"uncalibrated_{column}" for column in columns]]
    np.testing.assert_array_equal(own, before.reliability[columns])


def test_each_bin_of_the_reliability_table_has_the_interval_of_its_accuracy() -> None:
    probabilities, labels = draw(300, 4, seed=3)
    split = Split(np.zeros((300, 1, 1, 3), np.uint8), labels, tuple(map(str, range(300))))
    table = evaluate(probabilities, split, tuple("abcd"), 0.9).reliability
    for row in table.to_dict("records"):
        if row["images"]:
            expected = accuracy_interval(round(row["accuracy"] * row["images"]), row["images"], 0.9)
            assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(expected)
        else:
            assert np.isnan([row["accuracy_low"], row["accuracy_high"]]).all()
    groups = tuple(f"person {row // 30}" for row in range(300))
    grouped = evaluate(probabilities, dataclasses.replace(split, groups=groups), tuple("abcd"), 0.9).reliability
    wider = (grouped["accuracy_high"] - grouped["accuracy_low"]) >= (table["accuracy_high"] - table["accuracy_low"])
    assert wider[table["images"] > 0].all()


def test_a_class_without_test_images_counts_in_no_mean() -> None:
    probabilities, labels = draw(60, 4, seed=2)
    padded = np.column_stack([probabilities, np.zeros(60, np.float32)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known, absent = evaluated(probabilities, labels), evaluated(padded, labels)
    assert absent.metrics.macro_f1 == known.metrics.macro_f1
    assert absent.metrics.roc_auc_ovr == known.metrics.roc_auc_ovr
    assert absent.per_class.iloc[4][["precision", "recall", "f1"]].isna().all()
    assert absent.per_class["images"].tolist()[4] == 0


def test_a_class_that_is_never_predicted_has_precision_zero() -> None:
    scores = per_class_scores(np.array([0, 0, 0, 1, 1]), np.zeros(5, np.int64), ("a", "b"))
    assert scores.iloc[1][["precision", "recall", "f1"]].tolist() == [0.0, 0.0, 0.0]


def test_no_roc_curve_where_all_images_are_of_one_class() -> None:
    probabilities, _ = draw(10, 3, seed=0)
    assert roc_auc_ovr(probabilities, np.zeros(10, np.int64)) is None
    assert evaluated(probabilities, np.zeros(10, np.int64)).metrics.roc_auc_ovr is None


def test_a_true_class_of_probability_zero_costs_a_finite_loss() -> None:
    loss = negative_log_likelihood(np.array([[1.0, 0.0]], np.float32), np.array([1]))
    assert loss == pytest.approx(87.34, abs=0.01)


@hypothesis_settings(max_examples=40, deadline=None)
@given(images=st.integers(1, 60), classes=st.integers(2, 12), seed=st.integers(0, 10_000))
def test_what_holds_for_any_predictions(images: int, classes: int, seed: int) -> None:
    probabilities, labels = draw(images, classes, seed)
    result = evaluated(probabilities, labels)
    metrics = result.metrics
    assert metrics.accuracy_low <= metrics.accuracy <= metrics.accuracy_high
    assert metrics.accuracy == np.trace(result.confusion) / images
    assert result.confusion.sum() == images
    assert 0 <= metrics.brier_score <= 2
    assert 0 <= metrics.expected_calibration_error <= 1
    assert metrics.negative_log_likelihood >= 0
    assert metrics.top5_accuracy is None or metrics.top5_accuracy >= metrics.accuracy
    order = np.random.default_rng(seed).permutation(images)
    shuffled = evaluated(probabilities[order], labels[order]).metrics.model_dump()
    assert shuffled == pytest.approx(metrics.model_dump())


def test_a_perfect_model_has_perfect_scores() -> None:
    labels = np.arange(12) % 6
    metrics = evaluated(np.eye(6, dtype=np.float32)[labels], labels).metrics
    assert (metrics.accuracy, metrics.macro_f1, metrics.roc_auc_ovr, metrics.top5_accuracy) == (1, 1, 1, 1)
    assert (metrics.brier_score, metrics.negative_log_likelihood, metrics.expected_calibration_error) == (0, 0, 0)
    assert metrics.accuracy_low < 1


def test_scores_of_certainty_in_the_wrong_class_are_the_worst() -> None:
    probabilities, labels = np.array([[0.0, 1.0]], np.float32), np.array([0])
    assert brier_score(probabilities, labels) == 2.0
    assert evaluated(probabilities, labels).confusion.tolist() == [[0, 1], [0, 0]]
