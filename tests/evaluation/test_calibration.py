"""The reliability table and the calibration error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vit_vs_cnn.evaluation.calibration import (
    calibration_error_interval,
    expected_calibration_error,
    reliability_table,
)


def two_classes(confidence: list[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Probabilities whose highest, of class 0, is `confidence`."""
    return np.array([[highest, 1 - highest] for highest in confidence], np.float32)


def test_an_image_lies_in_the_bin_of_its_confidence() -> None:
    table = reliability_table(two_classes([0.55, 0.58, 0.99]), np.array([0, 1, 0]))
    filled = table[table["images"] > 0]
    assert len(table) == 15
    assert filled["bin_low"].tolist() == pytest.approx([8 / 15, 14 / 15])
    assert filled["bin_high"].tolist() == pytest.approx([9 / 15, 1.0])
    assert filled["images"].tolist() == [2, 1]
    assert filled["confidence"].tolist() == pytest.approx([0.565, 0.99])
    assert filled["accuracy"].tolist() == [0.5, 1.0]
    assert table.loc[table["images"] == 0, ["confidence", "accuracy"]].isna().all(axis=None)


def test_the_ends_of_the_scale_belong_to_the_first_and_the_last_bin() -> None:
    slightly_more_than_one = np.array([[np.nextafter(np.float32(1), np.float32(2)), 0.0]], np.float32)
    table = reliability_table(np.concatenate([two_classes([1.0]), slightly_more_than_one]), np.array([0, 0]))
    assert table["images"].tolist() == [0] * 14 + [2]
    assert reliability_table(np.zeros((1, 2), np.float32), np.array([0]))["images"].tolist() == [1] + [0] * 14


def test_a_model_that_is_right_as_often_as_it_says_has_no_error() -> None:
    labels = np.array([0] * 7 + [1] * 3)
    assert expected_calibration_error(reliability_table(two_classes([0.7] * 10), labels)) == pytest.approx(0, abs=1e-6)


def test_overconfidence_is_measured_as_the_gap() -> None:
    labels = np.array([0] * 6 + [1] * 4)
    assert expected_calibration_error(reliability_table(two_classes([0.9] * 10), labels)) == pytest.approx(0.3)


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0.501, 1.0), st.booleans()), min_size=1, max_size=50))
def test_the_error_is_that_of_the_definition(images: list[tuple[float, bool]]) -> None:
    probabilities = two_classes([confidence for confidence, _ in images])
    labels = np.array([0 if right else 1 for _, right in images])
    expected = 0.0
    for index in range(15):
        inside = [
            (float(row[0]), label == 0)
            for row, label in zip(probabilities, labels, strict=True)
            if index / 15 < float(row[0]) <= (index + 1) / 15
        ]
        if inside:
            gap = np.mean([right for _, right in inside]) - np.mean([confidence for confidence, _ in inside])
            expected += abs(gap) * len(inside) / len(images)
    table = reliability_table(probabilities, labels)
    assert table["images"].sum() == len(images)
    assert expected_calibration_error(table) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("too_sure", [0.0, 0.05, 0.15])
def test_the_interval_holds_the_error_of_all_images_nine_times_in_ten(too_sure: float) -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(50):
        confidence = rng.uniform(0.7, 1.0, 500)
        labels = np.where(rng.random(500) < confidence - too_sure, 0, 1)
        low, high = calibration_error_interval(two_classes(confidence.tolist()), labels, 0.95)
        error = expected_calibration_error(reliability_table(two_classes(confidence.tolist()), labels))
        assert low <= error <= high
        # Chance alone keeps the error of a few images above zero.
        hits += (low <= too_sure + 0.005) and (too_sure <= high)
    assert hits >= 45


def test_a_higher_confidence_widens_the_interval() -> None:
    labels = np.array([0] * 80 + [1] * 20)
    probabilities = two_classes([0.9] * 100)
    (low_90, high_90), (low_99, high_99) = (calibration_error_interval(probabilities, labels, q) for q in (0.9, 0.99))
    assert low_99 < low_90 < 0.1 < high_90 < high_99
