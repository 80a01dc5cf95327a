"""Which contestant leads under which corruption, by more than chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.evaluation.calibration import Answers, calibration_error_difference, calibration_shares
from vit_vs_cnn.evaluation.clusters import Groups, mean_interval
from vit_vs_cnn.evaluation.corruptions import CLEAN
from vit_vs_cnn.evaluation.replicates import MeanAccuracy, compare_replicates, mean_accuracy, training_chances
from vit_vs_cnn.evaluation.robustness import Robustness
from vit_vs_cnn.evaluation.significance import holm


@dataclass(frozen=True)
class Difference:
    """A difference of means, leader minus other, with its interval by the chance of images and of training."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Lead:
    """How far the leader is ahead of another contestant; `adjusted_p_value` allows for all leads compared (Holm)."""

    leader: str
    other: str
    difference: float
    low: float
    high: float
    confidence: float
    p_value: float
    adjusted_p_value: float

    @property
    def is_significant(self) -> bool:
        """Whether both the test and the interval say that the lead is more than chance."""
        return self.adjusted_p_value < 1 - self.confidence and self.low > 0.0


@dataclass(frozen=True)
class UnderCorruption:
    """Accuracies under one corruption by contestant, means over its severities and replicates with their intervals.

    `leads` are of the best over every other, the next best first. `nll` and `ece` are the differences between the best
    and the next best in negative log-likelihood and calibration error, lower the better; None of one contestant alone.
    """

    corruption: str
    accuracies: dict[str, MeanAccuracy]
    leads: list[Lead]
    nll: Difference | None
    ece: Difference | None

    @property
    def order(self) -> list[str]:
        """The contestants by falling accuracy."""
        return sorted(self.accuracies, key=lambda name: -self.accuracies[name].value)

    @property
    def winner(self) -> str | None:
        """The contestant that is ahead of every other by more than chance, None where none is."""
        return self.leads[0].leader if self.leads and all(lead.is_significant for lead in self.leads) else None


def compare_under_shift(
    measured: Mapping[str, Robustness], confidence: float, groups: Groups | None = None
) -> list[UnderCorruption]:
    """Compare the best contestant with every other on clean images, first, and under each corruption.

    Intervals and tests are those of `compare_replicates`. The severities of an image are no independent evidence, so
    they are by images, or by `groups` (N,) of these. Raises UserError where the contestants were not measured on the
    same images.
    """
    first_name, first = next(iter(measured.items()))
    for name, other in measured.items():
        if not np.array_equal(other.positions, first.positions) or other.correct.keys() != first.correct.keys():
            raise UserError(
                f"robustness/{name}: was measured on other images or corruptions than {first_name}; "
                "run `dvc repro` to measure both alike."
            )
    clean, *results = (
        _compare(name, measured, confidence, groups)
        for name in (CLEAN, *(corruption.name for corruption in first.corruptions))
    )
    # Clean images have their own, better comparison, on all of test.
    adjusted = iter(holm([lead.p_value for result in results for lead in result.leads]))
    return [
        clean,
        *(
            replace(result, leads=[replace(lead, adjusted_p_value=next(adjusted)) for lead in result.leads])
            for result in results
        ),
    ]


def _compare(
    corruption: str, measured: Mapping[str, Robustness], confidence: float, groups: Groups | None
) -> UnderCorruption:
    correct = {name: robustness.at_all_severities(corruption) for name, robustness in measured.items()}
    images = len(next(iter(measured.values())).positions)
    severities, by_severity = next(iter(correct.values())).shape[1] // images, groups
    if severities > 1:
        by_severity = np.tile(np.arange(images) if groups is None else groups, severities)
    accuracies = {name: mean_accuracy(right, confidence, by_severity) for name, right in correct.items()}
    best, *others = sorted(accuracies, key=lambda name: -accuracies[name].value)
    if not others:
        return UnderCorruption(corruption, accuracies, [], None, None)
    leads = []
    for other in others:
        found = compare_replicates(correct[best], correct[other], confidence, by_severity)
        leads.append(Lead(best, other, found.value, found.low, found.high, confidence, found.p_value, found.p_value))
    pair = measured[best], measured[others[0]]
    nll = _nll_difference(*pair, corruption, confidence, groups)
    ece = _ece_difference(*pair, corruption, confidence, groups)
    return UnderCorruption(corruption, accuracies, leads, nll, ece)


def _nll_difference(
    first: Robustness, second: Robustness, corruption: str, confidence: float, groups: Groups | None
) -> Difference:
    """Of the means over replicates and severities on each image, by Student's t."""
    found = ([one.losses[at] for at in one.severities(corruption)] for one in (first, second))
    losses = [np.array(of_one, np.float64).mean(axis=0) for of_one in found]
    differences = losses[0].mean(axis=0) - losses[1].mean(axis=0)
    of_images = Difference(float(differences.mean()), *mean_interval(differences, groups, confidence))
    return _widened(of_images, losses, confidence, groups)


def _ece_difference(
    first: Robustness, second: Robustness, corruption: str, confidence: float, groups: Groups | None
) -> Difference:
    """Of the means of the calibration errors of each replicate at each severity."""
    found = calibration_error_difference(_answers(first, corruption), _answers(second, corruption), confidence, groups)
    shares = [
        np.mean([calibration_shares(one.confidences[at], one.correct[at]) for at in one.severities(corruption)], 0)
        for one in (first, second)
    ]
    return _widened(Difference(*found), shares, confidence, groups)


def _widened(
    found: Difference, parts: Sequence[NDArray[np.float64]], confidence: float, groups: Groups | None
) -> Difference:
    """The difference with the chance of training, each variance with its own t quantile as in `ChanceModel`.

    `parts` are those of the images in the measure of each training, (S, N) of the first and of the second.
    """
    chances, tail = training_chances(parts[0], parts[1], groups), (1 - confidence) / 2
    if not chances:
        return found
    reach = math.sqrt(sum(stdtrit(chance.degrees, tail) ** 2 * chance.cautious for chance in chances))
    low = found.value - math.hypot(found.value - found.low, reach)
    return Difference(found.value, low, found.value + math.hypot(found.high - found.value, reach))


def _answers(robustness: Robustness, corruption: str) -> Answers:
    conditions = robustness.severities(corruption)
    confidences = np.concatenate([robustness.confidences[condition] for condition in conditions])
    return confidences, np.concatenate([robustness.correct[condition] for condition in conditions])
