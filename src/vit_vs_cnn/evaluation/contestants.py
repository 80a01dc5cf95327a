"""All that was measured of a contestant: its replicates, one for each seed, and the one that stands for them."""

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import evaluated, trained
from vit_vs_cnn.core.records import numbers_of
from vit_vs_cnn.evaluation.replicates import MeanAccuracy, mean_accuracy
from vit_vs_cnn.evaluation.results import Cost, Evaluation, read_cost, read_evaluation
from vit_vs_cnn.training.results import TrainingSummary, choose_replicate, read_summary, selection_score


@dataclass(frozen=True)
class Replicate:
    """One training of a contestant and its evaluation; `history` has history.csv's columns."""

    seed: int
    summary: TrainingSummary
    history: pd.DataFrame
    evaluation: Evaluation


@dataclass(frozen=True)
class Contestant:
    """The replicates of a contestant by seed, all on the same test images, and the cost of the chosen one.

    The chosen replicate is the best by validation: it is explained, timed and registered.
    """

    name: str
    replicates: tuple[Replicate, ...]
    chosen: Replicate
    cost: Cost

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each replicate classified each test image correctly, bool (S, N)."""
        return np.stack([replicate.evaluation.predictions.correct for replicate in self.replicates])

    @cached_property
    def mean(self) -> MeanAccuracy:
        """The mean test accuracy of the replicates, with its interval for other test images and other seeds alike."""
        evaluation = self.chosen.evaluation
        return mean_accuracy(self.correct, evaluation.metrics.confidence, evaluation.predictions.group_codes)

    @property
    def accuracy(self) -> float:
        """The fraction of the test images that are classified correctly, the mean of the replicates."""
        return self.mean.value

    def val_score(self, select_by: str) -> float:
        """The score on validation that models are chosen by, the mean of the replicates; higher is better."""
        return fmean(selection_score(replicate.summary, select_by) for replicate in self.replicates)

    @property
    def seconds_per_epoch(self) -> float:
        """The median over the replicates."""
        return median(replicate.summary.seconds_per_epoch for replicate in self.replicates)

    @cached_property
    def mean_metrics(self) -> dict[str, float]:
        """The mean over the replicates of every number in metrics.json, by its name there."""
        numbers = pd.DataFrame([numbers_of(replicate.evaluation.metrics) for replicate in self.replicates])
        return {str(name): float(value) for name, value in numbers.mean().items()}

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """per_class.csv with the mean scores of the replicates."""
        tables = [replicate.evaluation.per_class for replicate in self.replicates]
        scores = ["precision", "recall", "f1"]
        return tables[0].assign(**{score: np.mean([table[score] for table in tables], axis=0) for score in scores})

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """The confusion matrices of all replicates together, int64 (K, K)."""
        total: NDArray[np.int64] = np.sum([replicate.evaluation.confusion for replicate in self.replicates], axis=0)
        return total


def read_contestant(settings: Settings, name: str) -> Contestant:
    """Read a contestant from trained/, evaluated/ and cost/.

    Raises UserError where something is missing or where its replicates were not evaluated on the same images.
    """
    replicates = tuple(_read_replicate(name, seed) for seed in settings.seeds)
    first = replicates[0].evaluation.predictions
    for replicate in replicates[1:]:
        if replicate.evaluation.predictions.names != first.names:
            raise other_images(f"{name}/{replicate.seed}", f"{name}/{settings.seed}")
    chosen = choose_replicate(settings, name).seed
    return Contestant(name, replicates, replicates[settings.seeds.index(chosen)], read_cost(name))


def other_images(measured: str, first: str) -> UserError:
    """The error that two evaluations are of different test images."""
    return UserError(
        f"evaluated/{measured}: was measured on other test images than {first}; "
        "run `dvc repro` to evaluate both on the present ones."
    )


def _read_replicate(name: str, seed: int) -> Replicate:
    folder = trained(name, seed)
    summary = read_summary(folder)
    return Replicate(seed, summary, pd.read_csv(folder / "history.csv"), read_evaluation(evaluated(name, seed)))
