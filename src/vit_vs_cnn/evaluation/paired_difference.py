"""The metrics that models may be chosen by (`select_by`): their differences between two models on the same images."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from vit_vs_cnn.config.gate import SelectBy
from vit_vs_cnn.evaluation.clusters import Groups, design_effect, mean_interval, quantile, sums_by_group
from vit_vs_cnn.evaluation.metrics import log_losses
from vit_vs_cnn.evaluation.results import Predictions
from vit_vs_cnn.evaluation.significance import accuracy_difference_interval, discordant

# An equal model passes a test of non-inferiority with this probability on as many images as `images_needed` says.
POWER = 0.8


@dataclass(frozen=True)
class PairedDifference:
    """A metric of the first model minus that of the second on the same images, with its interval by `method`.

    It is positive where the first is better, of every metric. `variance` is that of one image's part in it, larger by
    the design effect where the interval is by groups; `groups` is their number.
    """

    value: float
    low: float
    high: float
    method: str
    variance: float
    groups: int | None = None


def images_needed(variance: float, margin: float, confidence: float, *, of_shares: bool) -> int:
    """How many images let an equal model pass a margin above 0 with probability POWER, if one adds this `variance`.

    A difference `of_shares` of right images has a larger variance where it is −margin than where it is 0: Tango's score
    has (v + √(v² + 4·margin²)) / 2 there, for as many images that only the first is right on as only the second.
    """
    at_margin = (variance + math.hypot(variance, 2 * margin)) / 2 if of_shares else variance
    quantile, power = float(ndtri((1 + confidence) / 2)), float(ndtri(POWER))
    return math.ceil(((quantile * math.sqrt(at_margin) + power * math.sqrt(variance)) / margin) ** 2)


def paired_difference(
    select_by: SelectBy, first: Predictions, second: Predictions, confidence: float
) -> PairedDifference:
    """The metric of `first` minus that of `second`, made of the same images in the same order; by groups, if known."""
    groups = first.group_codes if first.groups is not None else second.group_codes
    if select_by == "accuracy":
        difference = _accuracy_difference(first, second, groups, confidence)
    elif select_by == "nll":
        difference = _log_likelihood_difference(first, second, groups, confidence)
    else:
        difference = _class_mean_difference(select_by, first, second, groups, confidence)
    return difference if groups is None else replace(difference, groups=len(np.unique(groups)))


def _accuracy_difference(
    first: Predictions, second: Predictions, groups: Groups | None, confidence: float
) -> PairedDifference:
    first_only, second_only = discordant(first.correct, second.correct)
    images, gains = len(first.labels), first.correct.astype(np.int64) - second.correct
    low, high = accuracy_difference_interval(first.correct, second.correct, groups, confidence)
    variance = (first_only + second_only) / images * _design_effect(gains, groups)
    return PairedDifference((first_only - second_only) / images, low, high, "Tango", variance)


def _log_likelihood_difference(
    first: Predictions, second: Predictions, groups: Groups | None, confidence: float
) -> PairedDifference:
    """The t interval of the mean difference per image, in nats."""
    gains = log_losses(second.probabilities, second.labels) - log_losses(first.probabilities, first.labels)
    low, high = mean_interval(gains, groups, confidence)
    variance = float(gains.var(ddof=1)) * _design_effect(gains, groups)
    return PairedDifference(float(gains.mean()), low, high, "paired t", variance)


def _design_effect(gains: NDArray[Any], groups: Groups | None) -> float:
    return 1.0 if groups is None else design_effect(gains, groups)


def _class_mean_difference(
    select_by: SelectBy, first: Predictions, second: Predictions, groups: Groups | None, confidence: float
) -> PairedDifference:
    """The interval of balanced accuracy or macro F1 by the delta method.

    Its variance is the sum of the squared differences of what each image, or each group, contributes. Where hardly an
    image divides the two, that is no measure of what other images would do: as in Wilson's interval, z² images of the
    smallest class are added to it, or as many groups of the class that the fewest have.
    """
    reach = quantile(confidence, groups)
    (own, own_shares), (others, other_shares) = (
        _contributions(select_by, predictions) for predictions in (first, second)
    )
    shares = own_shares - other_shares
    draws = first.labels if groups is None else np.unique(np.stack([first.labels, groups]), axis=1)[0]
    draws_of_class = np.bincount(draws)
    draws_of_class = draws_of_class[draws_of_class > 0]
    of_one_draw = 1 / (len(draws_of_class) * draws_of_class.min())
    if groups is not None:
        shares = sums_by_group(shares, groups)
        shares *= math.sqrt(len(shares) / max(1, len(shares) - 1))
    variance = float(np.square(shares).sum())
    half_width = reach * math.sqrt(variance + (reach * of_one_draw) ** 2)
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
