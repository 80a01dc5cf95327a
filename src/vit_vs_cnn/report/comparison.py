"""The comparison of the contestants: their results, the tests of each pair, and both as tables."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.colours import contestant_colour
from vit_vs_cnn.evaluation.contestants import Contestant, other_images, read_contestant
from vit_vs_cnn.evaluation.pairs import PairedComparison, compare_all_pairs, verdict
from vit_vs_cnn.evaluation.results import Predictions

# Fractions, seconds, milliseconds, megabytes. Qualities are means over the replicates, and the interval of the accuracy
# allows for other seeds too; parameters, latency, throughput and the chosen epoch are those of the chosen replicate.
_COLUMNS = (
    "contestant", "timm", "seeds", "accuracy", "accuracy_low", "accuracy_high", "accuracy_std", "confidence", "images",
    "accuracy_without_duplicates", "duplicates_in_train", "macro_f1",
    "negative_log_likelihood", "expected_calibration_error", "val_accuracy", "chosen_seed", "best_epoch",
    "seconds_per_epoch", "parameters", "flops", "latency_p50_ms", "latency_p50_ms_low", "latency_p50_ms_high",
    "latency_p95_ms", "throughput_images_per_second", "throughput_images_per_second_low",
    "throughput_images_per_second_high", "peak_memory_mb",
)  # fmt: skip


@dataclass(frozen=True)
class WithViews:
    """A contestant's answers averaged over `forwards` views of each image, means over its replicates.

    `gain` is over the plain model, `gained` and `lost` count images. The interval is for one replicate, the standard
    deviation for several; else None.
    """

    forwards: int
    accuracy: float
    accuracy_std: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    gain: float
    gained: float
    lost: float


@dataclass(frozen=True)
class Comparison:
    """All contestants on the same test images, in the order of params.yaml, and each pair's tests.

    `colours` are those of the contestants in every figure.
    """

    contestants: tuple[Contestant, ...]
    pairs: tuple[PairedComparison, ...]
    colours: Mapping[str, str]

    @property
    def predictions(self) -> dict[str, list[Predictions]]:
        """The predictions of each replicate, by contestant."""
        return {
            contestant.name: [replicate.evaluation.predictions for replicate in contestant.replicates]
            for contestant in self.contestants
        }

    @property
    def sentences(self) -> list[str]:
        """The result of each pair's tests in words."""
        return [verdict(pair, len(self.pairs)) for pair in self.pairs]

    @property
    def best(self) -> Contestant:
        """The contestant with the highest accuracy, whether or not by more than chance."""
        return max(self.contestants, key=lambda contestant: contestant.accuracy)

    def pair(self, first: str, second: str) -> PairedComparison:
        """The tests of two contestants."""
        return next(pair for pair in self.pairs if {pair.first, pair.second} == {first, second})

    def beaten_by(self, winner: Contestant) -> list[str]:
        """The contestants that `winner` is better than by more than chance."""
        others = [other.name for other in self.contestants if other is not winner]
        return [other for other in others if self.pair(winner.name, other).better == winner.name]


def read_comparison(settings: Settings) -> Comparison:
    """Read the contestants of `settings` from trained/, evaluated/ and cost/ and test each pair.

    Raises UserError where something is missing or where they were not evaluated on the same images.
    """
    contestants = tuple(read_contestant(settings, name) for name in settings.models)
    first, *others = contestants
    predictions = first.chosen.evaluation.predictions
    for other in others:
        if other.chosen.evaluation.predictions.names != predictions.names:
            raise other_images(other.name, first.name)
    correct = {contestant.name: contestant.correct for contestant in contestants}
    confidence, margin = settings.evaluate.confidence, settings.compare.margin
    pairs = compare_all_pairs(correct, confidence, margin, predictions.group_codes)
    colours = {name: contestant_colour(settings.models, name) for name in settings.models}
    return Comparison(contestants, tuple(pairs), colours)


def comparison_table(comparison: Comparison) -> pd.DataFrame:
    """One row per contestant: quality on test and cost."""
    return pd.DataFrame([_row(contestant) for contestant in comparison.contestants]).reindex(columns=list(_COLUMNS))


def _row(contestant: Contestant) -> dict[str, object]:
    return (
        contestant.chosen.summary.model_dump(include={"timm", "best_epoch"})
        | contestant.mean_metrics
        | contestant.cost.model_dump()
        | {
            "contestant": contestant.name,
            "seeds": len(contestant.replicates),
            "accuracy": contestant.accuracy,
            "accuracy_low": contestant.mean.low,
            "accuracy_high": contestant.mean.high,
            "accuracy_std": contestant.mean.deviation,
            "confidence": contestant.chosen.evaluation.metrics.confidence,
            "images": contestant.chosen.evaluation.metrics.images,
            "duplicates_in_train": contestant.chosen.evaluation.metrics.duplicates_in_train,
            "val_accuracy": contestant.val_score("accuracy"),
            "chosen_seed": contestant.chosen.seed,
            "seconds_per_epoch": contestant.seconds_per_epoch,
        }
    )


def with_views(contestant: Contestant) -> WithViews | None:
    """What several views of each image change; None of a contestant that was evaluated without."""
    measured = [replicate.evaluation.metrics for replicate in contestant.replicates]
    views = [metrics.views for metrics in measured if metrics.views is not None]
    if len(views) < len(measured):
        return None
    accuracies, alone = [found.accuracy for found in views], len(views) == 1
    return WithViews(
        forwards=views[0].forwards,
        accuracy=fmean(accuracies),
        accuracy_std=None if alone else stdev(accuracies),
        accuracy_low=views[0].accuracy_low if alone else None,
        accuracy_high=views[0].accuracy_high if alone else None,
        gain=fmean(accuracies) - fmean(metrics.accuracy for metrics in measured),
        gained=fmean(found.gained for found in views),
        lost=fmean(found.lost for found in views),
    )


def summary_numbers(comparison: Comparison) -> dict[str, float]:
    """Accuracy by contestant, difference and p value by pair, in one flat mapping for DVC and MLflow."""
    numbers = {f"accuracy_{contestant.name}": contestant.accuracy for contestant in comparison.contestants}
    for contestant in comparison.contestants:
        if contestant.mean.deviation is not None:
            numbers[f"accuracy_std_{contestant.name}"] = contestant.mean.deviation
    for pair in comparison.pairs:
        numbers[f"difference_{pair.first}_{pair.second}"] = pair.difference
        numbers[f"p_value_{pair.first}_{pair.second}"] = pair.adjusted_p_value
    return numbers


def write_tables(comparison: Comparison, answer: str, folder: Path) -> None:
    """Write comparison.csv, replicates.csv, significance.json and the flat summary.json for `dvc metrics show`."""
    folder.mkdir(parents=True, exist_ok=True)
    comparison_table(comparison).to_csv(folder / "comparison.csv", index=False)
    replicates_table(comparison).to_csv(folder / "replicates.csv", index=False)
    pairs = [
        asdict(pair) | {"better": pair.better, "verdict": pair.verdict, "sentence": sentence}
        for pair, sentence in zip(comparison.pairs, comparison.sentences, strict=True)
    ]
    contents = {"significance": {"answer": answer, "pairs": pairs}, "summary": summary_numbers(comparison)}
    for name, values in contents.items():
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


def replicates_table(comparison: Comparison) -> pd.DataFrame:
    """One row per training: contestant, seed, accuracy on val and test, chosen epoch, seconds."""
    return pd.DataFrame(
        {
            "contestant": contestant.name,
            "seed": replicate.seed,
            "accuracy": replicate.evaluation.metrics.accuracy,
            "val_accuracy": replicate.summary.val_accuracy,
            "best_epoch": replicate.summary.best_epoch,
            "seconds": replicate.summary.seconds,
            "chosen": replicate is contestant.chosen,
        }
        for contestant in comparison.contestants
        for replicate in contestant.replicates
    )
