"""Errors in common, the average of the contestants, and suspect labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import evaluation
from vit_vs_cnn.evaluation.errors import average_of_all, label_suspects, only_right, overlaps
from vit_vs_cnn.evaluation.results import Predictions


def wrong_on(*images: int, confidence: float = 0.9) -> Predictions:
    return evaluation(images, images=60, confidence=confidence).predictions


def says(answers: dict[int, int], sure: float = 0.95, label: float = 0.9, images: int = 60) -> Predictions:
    """Right with probability `label` on all images but those of `answers`, of which it is `sure` of that class."""
    labels = np.arange(images) % 3
    probabilities = np.full((images, 3), (1 - label) / 2, np.float32)
    probabilities[np.arange(images), labels] = label
    for image, answer in answers.items():
        probabilities[image] = (1 - sure) / 2
        probabilities[image, answer] = sure
    names = tuple(f"{image}.png" for image in range(images))
    return Predictions(names, labels, probabilities.argmax(axis=1), probabilities)


def test_an_overlap_counts_every_image_once() -> None:
    (pair,) = overlaps({"vit": [wrong_on(1, 2, 3)], "resnet": [wrong_on(3, 4)]})
    assert (pair.both, pair.first_only, pair.second_only, pair.neither) == (56, 1, 2, 1)
    assert pair.expected_neither == pytest.approx(3 * 2 / 60)
    expected = (57 * 58 + 3 * 2) / 60**2
    assert pair.error_consistency == pytest.approx((57 / 60 - expected) / (1 - expected))


@given(
    first=st.lists(st.sets(st.integers(0, 59)), min_size=1, max_size=3),
    second=st.lists(st.sets(st.integers(0, 59)), min_size=1, max_size=3),
)
def test_of_several_replicates_it_is_the_mean_over_their_pairs(first: list[set[int]], second: list[set[int]]) -> None:
    def of(one: list[set[int]], other: list[set[int]]) -> tuple[float, ...]:
        predictions = {"vit": [wrong_on(*wrong) for wrong in one], "resnet": [wrong_on(*wrong) for wrong in other]}
        (pair,) = overlaps(predictions)
        assert pair.images == pytest.approx(60)
        return pair.both, pair.first_only, pair.second_only, pair.neither

    mean = np.mean([of([one], [other]) for one in first for other in second], axis=0)
    assert of(first, second) == pytest.approx(tuple(mean), abs=1e-6)


@pytest.mark.parametrize(("errors", "expected"), [((), None), ((1, 2), 1.0), (range(60), None)])
def test_the_same_errors_are_consistent_and_none_tell_nothing(errors: tuple[int, ...], expected: float | None) -> None:
    (pair,) = overlaps({"vit": [wrong_on(*errors)], "resnet": [wrong_on(*errors)]})
    assert pair.error_consistency == (expected if expected is None else pytest.approx(expected))


def test_the_average_follows_the_surer_one() -> None:
    predictions = {"vit": [wrong_on(1, 2, confidence=0.6)], "resnet": [wrong_on(3, 4, 5, confidence=0.9)]}
    average = average_of_all(predictions, 0.95)
    assert average.best == "vit"
    assert average.accuracy == pytest.approx(57 / 60)
    assert average.difference == pytest.approx(-1 / 60)
    assert average.low < average.difference < average.high


def test_a_label_is_suspect_where_all_are_as_sure_as_of_that_class_usually() -> None:
    surely, hardly = {4: 2, 9: 1}, {4: 2, 9: 1}
    both = {"vit": [says(surely), says(surely)], "resnet": [says(hardly, sure=0.99)]}
    found = label_suspects(both)
    assert found.to_dict("list") == {
        "position": [4, 9],
        "name": ["4.png", "9.png"],
        "label": [1, 0],
        "predicted": [2, 1],
        "confidence": [pytest.approx((2 * 0.95 + 0.99) / 3)] * 2,
    }
    one_differs = {**both, "third": [says({4: 0, 9: 1})]}
    assert label_suspects(one_differs)["position"].tolist() == [9]
    unsure = {"vit": [says(surely, sure=0.6)], "resnet": [says(surely, sure=0.6)]}
    assert label_suspects(unsure).empty


def test_only_one_is_right_where_all_its_replicates_are_and_no_other_is() -> None:
    predictions = {"vit": [says({1: 2, 2: 0, 3: 1})], "resnet": [says({7: 0}), says({3: 1, 7: 0})]}
    alone = only_right(predictions, "resnet")
    assert alone["position"].tolist() == [1, 2]
    assert alone["predicted"].tolist() == [2, 0]
    assert alone["confidence"].tolist() == pytest.approx([0.9, 0.9])
    assert only_right(predictions, "vit")["position"].tolist() == [7]
