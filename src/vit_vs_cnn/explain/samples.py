"""Which test images the pictures show: the same for every contestant, and each contestant's own mistakes."""

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.evaluation.results import Predictions


def shared_images(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Positions (int64) of `count` images (all, if there are fewer), spread evenly over the classes.

    They depend on the data and `seed` only, never on a model: every contestant is shown on the same images.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    turn_of_class = generator.permutation(labels.max() + 1)
    # How many of its class come before each image: the first of every class are taken before the second of any.
    earlier = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        earlier[of_class] = np.arange(len(of_class))
    return np.lexsort((turn_of_class[labels], earlier))[:count]


def confident_mistakes(predictions: Predictions, count: int) -> NDArray[np.int64]:
    """Positions (int64) of at most `count` misclassified images, the most confident first."""
    wrong = np.flatnonzero(~predictions.correct)
    confidence = predictions.probabilities[wrong, predictions.predicted[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:count]
