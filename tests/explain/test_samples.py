import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vit_vs_cnn.evaluation.results import Predictions
from vit_vs_cnn.explain.samples import confident_mistakes, shared_images

label_arrays = arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 6))


@given(labels=label_arrays, count=st.integers(1, 32), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_shared_images_are_distinct_and_spread_over_the_classes(labels: np.ndarray, count: int, seed: int) -> None:
    chosen = shared_images(labels, count, seed)
    assert len(chosen) == len(set(chosen.tolist())) == min(count, len(labels))
    shown = np.bincount(labels[chosen], minlength=7)
    there = np.bincount(labels, minlength=7)
    # A class shows fewer than another only if it has no more.
    assert all(shown[i] >= shown.max() - 1 for i in range(7) if there[i] > shown[i])


def test_shared_images_depend_on_the_seed_alone() -> None:
    labels = np.arange(200) % 10
    assert np.array_equal(shared_images(labels, 8, seed=3), shared_images(labels, 8, seed=3))
    assert not np.array_equal(shared_images(labels, 8, seed=3), shared_images(labels, 8, seed=4))


def predictions(labels: list[int], predicted: list[int], confidence: list[float]) -> Predictions:
    probabilities = np.full((len(labels), 3), 0.01, np.float32)
    probabilities[np.arange(len(labels)), predicted] = confidence
    names = tuple(map(str, range(len(labels))))
    return Predictions(names, np.array(labels), np.array(predicted), probabilities)


def test_mistakes_come_with_the_most_confident_first() -> None:
    answers = predictions([0, 1, 2, 0, 1], [1, 1, 0, 2, 0], [0.5, 0.99, 0.9, 0.6, 0.7])
    assert confident_mistakes(answers, 3).tolist() == [2, 4, 3]


def test_there_may_be_fewer_mistakes_or_none() -> None:
    assert confident_mistakes(predictions([0, 1], [1, 1], [0.5, 0.9]), 4).tolist() == [0]
    assert confident_mistakes(predictions([0, 1], [0, 1], [0.5, 0.9]), 4).tolist() == []
