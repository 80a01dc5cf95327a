"""The metrics that models may be chosen by (`select_by`): their differences between two models on the same images."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from vit_vs_cnn.config.gate import SelectBy
from vit_vs_cnn.evaluation.metrics import log_losses
from vit_vs_cnn.evaluation.results import Predictions
from vit_vs_cnn.evaluation.significance import discordant, tango_interval

# An equal model passes a test of non-inferiority with this probability on as many images as `images_needed` says.
POWER = 0.8


@dataclass(frozen=True)
class PairedDifference:
    """A metric of the first model minus that of the second on the same images, with its interval by `method`.

    It is positive where the first is better, of every metric. `variance` is that of one image's part in it.
    """

    value: float
    low: float
    high: float
    method: str
    variance: float


def images_needed(variance: float, margin: float, confidence: float, *, of_shares: bool) -> int:
    """How many images let an equal model pass a margin above 0 with probability POWER, if one adds this `variance`.

    A difference `of_shares` of right images has a larger variance where it is −margin than where it is 0: Tango's score
    has (v + √(v² + 4·margin²)) / 2 there, for as many images that only the first is right on as only the second.
    """
    at_margin = (variance + math.hypot(variance, 2 * margin)) / 2 if of_shares else variance
    quantile, power = float(norm.ppf((1 + confidence) / 2)), float(norm.ppf(POWER))
    return math.ceil(((quantile * math.sqrt(at_margin) + power * math.sqrt(variance)) / margin) ** 2)


def paired_difference(
    select_by: SelectBy, first: Predictions, second: Predictions, confidence: float
) -> PairedDifference:
    """The metric of `first` minus that of `second`, made of the same images in the same order."""
    if select_by == "accuracy":
        first_only, second_only = discordant(first.correct, second.correct)
        images = len(first.labels)
        low, high = tango_interval(first_only, second_only, images, confidence)
        variance = (first_only + second_only) / images
        return PairedDifference((first_only - second_only) / images, low, high, "Tango", variance)
    if select_by == "nll":
        return _log_likelihood_difference(first, second, confidence)
    return _class_mean_difference(select_by, first, second, confidence)


def _log_likelihood_difference(first: Predictions, second: Predictions, confidence: float) -> PairedDifference:
    """The t interval of the mean difference per image, in nats."""
    gains = log_losses(second.probabilities, second.labels) - log_losses(first.probabilities, first.labels)
    value, variance = float(gains.mean()), float(gains.var(ddof=1))
    half_width = float(t.ppf((1 + confidence) / 2, len(gains) - 1)) * math.sqrt(variance / len(gains))
    return PairedDifference(value, value - half_width, value + half_width, "paired t", variance)


def _class_mean_difference(
    select_by: SelectBy, first: Predictions, second: Predictions, confidence: float
) -> PairedDifference:
    """The interval of balanced accuracy or macro F1 by the delta method.

    Its variance is the sum of the squared differences of what each image contributes. Where hardly an image divides the
    two, that is no measure of what other images would do: as in Wilson's interval, z² images of the smallest class are
    added to it.
    """
    quantile = float(norm.ppf((1 + confidence) / 2))
    (own, own_shares), (others, other_shares) = (
        _contributions(select_by, predictions) for predictions in (first, second)
    )
    images_of_class = np.bincount(first.labels)
    images_of_class = images_of_class[images_of_class > 0]
    of_one_image = 1 / (len(images_of_class) * images_of_class.min())
    variance = float(np.square(own_shares - other_shares).sum())
    half_width = quantile * math.sqrt(variance + (quantile * of_one_image) ** 2)
    value, images = own - others, len(first.labels)
    return PairedDifference(value, value - half_width, value + half_width, "delta method", variance * images)


def _contributions(select_by: SelectBy, predictions: Predictions) -> tuple[float, NDArray[np.float64]]:
    """Balanced accuracy or macro F1, and how far each image moves it, float (N,), to the first order."""
    labels, predicted, correct = predictions.labels, predictions.predicted, predictions.correct
    classes = predictions.probabilities.shape[1]
    images, right = np.bincount(labels, minlength=classes), np.bincount(labels[correct], minlength=classes)
    present = images > 0
    if select_by == "balanced_accuracy":
        recall = right / np.maximum(images, 1)
        return float(recall[present].mean()), (correct - recall[labels]) / images[labels] / present.sum()
    # F1 = 2·right / (images + predicted): an image counts for its own class, and against the class predicted for it.
    total = images + np.bincount(predicted, minlength=classes)
    f1 = np.where(present, 2 * right / np.maximum(total, 1), 0.0)
    shares = (2 * correct - f1[labels]) / total[labels] - f1[predicted] / total[predicted]
    return float(f1[present].mean()), shares / present.sum()
