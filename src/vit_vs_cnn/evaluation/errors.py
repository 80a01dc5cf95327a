"""On which test images contestants err together, what their average reaches, and which labels may be wrong.

Everywhere `predictions` has, by contestant, those of each of its replicates on the same test images, in order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vit_vs_cnn.evaluation.replicates import compare_replicates
from vit_vs_cnn.evaluation.results import Predictions

ByReplicate = Mapping[str, Sequence[Predictions]]


@dataclass(frozen=True)
class Overlap:
    """How many images both, one or none of two contestants gets right, in the mean over pairs of their replicates.

    `expected_neither` is what it would be if they erred independently.
    """

    first: str
    second: str
    both: float
    first_only: float
    second_only: float
    neither: float

    @property
    def images(self) -> float:
        """The number of images."""
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def expected_neither(self) -> float:
        """How many none would get right if the one's errors said nothing of the other's."""
        return (self.neither + self.first_only) * (self.neither + self.second_only) / self.images

    @property
    def error_consistency(self) -> float | None:
        """Cohen's kappa of being right: 0 as if independent, 1 with the same errors; None where no image decides.

        Geirhos, Meding & Wichmann 2020, "Beyond accuracy: quantifying trial-by-trial behaviour of CNNs and humans by
        measuring error consistency", arXiv 2006.16736.
        """
        first, second = self.both + self.first_only, self.both + self.second_only
        expected = (first * second + (self.images - first) * (self.images - second)) / self.images**2
        if expected == 1.0:
            return None
        return ((self.both + self.neither) / self.images - expected) / (1 - expected)


@dataclass(frozen=True)
class Average:
    """The accuracy of the average of all contestants' probabilities, and its lead over the `best` of them, paired."""

    accuracy: float
    best: str
    difference: float
    low: float
    high: float


def overlaps(predictions: ByReplicate) -> list[Overlap]:
    """The overlap of each pair of contestants."""
    shares = {name: _right(replicates).mean(axis=0) for name, replicates in predictions.items()}
    return [
        Overlap(
            first=first,
            second=second,
            both=float((shares[first] * shares[second]).sum()),
            first_only=float((shares[first] * (1 - shares[second])).sum()),
            second_only=float(((1 - shares[first]) * shares[second]).sum()),
            neither=float(((1 - shares[first]) * (1 - shares[second])).sum()),
        )
        for first, second in combinations(shares, 2)
    ]


def average_of_all(predictions: ByReplicate, confidence: float) -> Average:
    """Average the probabilities of one replicate of each contestant, the first of each, then the second …."""
    accuracies = {name: _right(replicates).mean() for name, replicates in predictions.items()}
    best = max(accuracies, key=lambda name: float(accuracies[name]))
    any_of = predictions[best][0]
    averaged = [
        np.mean([one.probabilities for one in together], axis=0).argmax(axis=1) == any_of.labels
        for together in zip(*predictions.values(), strict=False)
    ]
    right, of_best = np.array(averaged), _right(predictions[best])[: len(averaged)]
    found = compare_replicates(right, of_best, confidence, any_of.group_codes)
    return Average(float(right.mean()), best, found.value, found.low, found.high)


def label_suspects(predictions: ByReplicate) -> pd.DataFrame:
    """Images that all replicates of all contestants take for another class than their label, and surely.

    Surely: in the mean they give that class at least the probability that images with its label have, as in the
    confident learning of Northcutt, Jiang & Chuang 2021 (JAIR 70, arXiv 1911.00068). Columns position, name, label,
    predicted (classes by number), confidence; the surest first.
    """
    replicates = [one for of_contestant in predictions.values() for one in of_contestant]
    labels, mean = replicates[0].labels, np.mean([one.probabilities for one in replicates], axis=0)
    predicted, confidence = mean.argmax(axis=1), mean.max(axis=1)
    # A class without images has no threshold that could be reached.
    usual = np.array([mean[labels == k, k].mean() if (labels == k).any() else np.inf for k in range(mean.shape[1])])
    agreed = np.all([one.predicted == predicted for one in replicates], axis=0)
    found = np.flatnonzero(agreed & (predicted != labels) & (confidence >= usual[predicted]))
    return _listed(replicates[0], found, predicted, confidence)


def only_right(predictions: ByReplicate, contestant: str) -> pd.DataFrame:
    """Images that every replicate of `contestant` classifies correctly and no other's; columns as of `label_suspects`.

    `predicted` is what the others say in the mean, `confidence` how sure the contestant is of the label.
    """
    others = [one for name, replicates in predictions.items() if name != contestant for one in replicates]
    own = predictions[contestant]
    labels = own[0].labels
    others_right = np.any([one.correct for one in others], axis=0)
    found = np.flatnonzero(_right(own).all(axis=0) & ~others_right)
    predicted = np.mean([one.probabilities for one in others], axis=0)
    predicted[np.arange(len(labels)), labels] = -1.0  # none of them says so
    confidence = np.mean([one.probabilities for one in own], axis=0)[np.arange(len(labels)), labels]
    return _listed(own[0], found, predicted.argmax(axis=1), confidence)


def mistakes(predictions: ByReplicate) -> pd.DataFrame:
    """Images that a replicate of any contestant gets wrong, with what each contestant says, in the order of the images.

    Columns position, name, label, and for each contestant its class by the mean of its replicates' probabilities,
    `<contestant>_predicted`, the mean probability of that class, `<contestant>_confidence`, and the share of its
    replicates that are right, `<contestant>_right`.
    """
    first = next(iter(predictions.values()))[0]
    columns: dict[str, NDArray[Any]] = {"label": first.labels}
    for name, replicates in predictions.items():
        mean = np.mean([one.probabilities for one in replicates], axis=0)
        columns[f"{name}_predicted"] = mean.argmax(axis=1)
        columns[f"{name}_confidence"] = mean.max(axis=1)
        columns[f"{name}_right"] = _right(replicates).mean(axis=0)
    table = pd.DataFrame({"position": np.arange(len(first.labels)), "name": first.names} | columns)
    return table[(table.filter(regex="_right$") < 1).any(axis=1)]


def _right(replicates: Sequence[Predictions]) -> NDArray[np.bool_]:
    """Whether each replicate is right on each image, bool (S, N)."""
    return np.array([one.correct for one in replicates])


def _listed(
    predictions: Predictions, rows: NDArray[np.int64], predicted: NDArray[np.int64], confidence: NDArray[np.float32]
) -> pd.DataFrame:
    rows = rows[np.argsort(-confidence[rows], kind="stable")]
    return pd.DataFrame(
        {
            "position": rows,
            "name": [predictions.names[row] for row in rows],
            "label": predictions.labels[rows],
            "predicted": predicted[rows],
            "confidence": confidence[rows],
        }
    )
