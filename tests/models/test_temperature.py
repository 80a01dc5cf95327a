"""The temperature that fits a network's logits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax

from vit_vs_cnn.models.temperature import HIGHEST, LOWEST, fit_temperature, softmax

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


def loss(logits: Logits, labels: Labels, temperature: float) -> float:
    return float(-log_softmax(logits.astype(np.float64) / temperature, axis=1)[np.arange(len(labels)), labels].mean())


def honest(images: int, classes: int, seed: int = 0) -> tuple[Logits, Labels]:
    """Logits that mean what they say: each label is drawn from its own softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.0, size=(images, classes)).astype(np.float32)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_logits_that_are_too_small_or_too_large_by_a_factor_have_that_factor_as_temperature(factor: float) -> None:
    logits, labels = honest(20_000, 5)
    assert fit_temperature(np.float32(factor) * logits, labels) == pytest.approx(factor, rel=0.03)


def test_no_other_temperature_makes_the_labels_more_likely() -> None:
    logits, labels = honest(5_000, 3, seed=1)
    logits *= np.float32(3)
    fitted = loss(logits, labels, fit_temperature(logits, labels))
    # The image that is counted beside the 5,000 costs less than this.
    assert fitted <= min(loss(logits, labels, other) for other in np.geomspace(LOWEST, HIGHEST, 200)) + 1e-6


@given(
    images=st.integers(1, 40),
    classes=st.integers(2, 6),
    scale=st.sampled_from([0.0, 0.01, 1.0, 30.0, 1e4]),
    seed=st.integers(0, 1000),
)
def test_it_is_bounded_and_never_worse_than_none(images: int, classes: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=scale, size=(images, classes)).astype(np.float32)
    labels = rng.integers(0, classes, images)
    temperature = fit_temperature(logits, labels)
    assert LOWEST <= temperature <= HIGHEST
    assert loss(logits, labels, temperature) <= loss(logits, labels, 1.0)


def test_where_all_are_right_it_does_not_ask_for_certainty() -> None:
    labels = np.arange(300) % 3
    unsure = np.eye(3, dtype=np.float32)[labels]
    sharpened = softmax(unsure, fit_temperature(unsure, labels)).max(axis=1)
    # One mistake in 301 of which a random class is right in a third.
    assert sharpened == pytest.approx(np.full(300, 1 - 2 / 3 / 301), abs=1e-4)
    assert fit_temperature(50 * unsure, labels) == 1.0
