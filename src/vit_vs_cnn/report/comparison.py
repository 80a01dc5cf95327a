"""The comparison of the contestants: one table, the paired tests, and the answer in words."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import evaluated, trained
from vit_vs_cnn.evaluation.results import Evaluation, read_evaluation
from vit_vs_cnn.evaluation.significance import PairedComparison, compare_all_pairs, verdict
from vit_vs_cnn.training.results import TrainingSummary, read_summary

# Times of the same training differ by some percent from run to run.
_SAME_TIME = 1.1


@dataclass(frozen=True)
class Contestant:
    """What is known of one contestant; `history` has the columns of history.csv."""

    name: str
    summary: TrainingSummary
    history: pd.DataFrame
    evaluation: Evaluation


@dataclass(frozen=True)
class Comparison:
    """All contestants on the same test images, in the order of params.yaml, and each pair's tests."""

    contestants: tuple[Contestant, ...]
    pairs: tuple[PairedComparison, ...]

    @property
    def sentences(self) -> list[str]:
        """What the tests of each pair say."""
        return [verdict(pair, len(self.pairs)) for pair in self.pairs]


def read_comparison(settings: Settings) -> Comparison:
    """Read the contestants of `settings` from trained/ and evaluated/ and test each pair.

    Raises UserError where something is missing or where they were not evaluated on the same images.
    """
    contestants = tuple(
        Contestant(
            name=name,
            summary=read_summary(trained(name)),
            history=pd.read_csv(trained(name) / "history.csv"),
            evaluation=read_evaluation(evaluated(name)),
        )
        for name in settings.models
    )
    names = contestants[0].evaluation.predictions.names
    for other in contestants[1:]:
        if other.evaluation.predictions.names != names:
            raise UserError(
                f"evaluated/{other.name}: was measured on other test images than {contestants[0].name}; "
                "run `dvc repro` to evaluate both on the present ones."
            )
    right = {each.name: each.evaluation.predictions.correct for each in contestants}
    pairs = compare_all_pairs(right, settings.evaluate.confidence, settings.evaluate.bootstrap, settings.seed)
    return Comparison(contestants, tuple(pairs))


def answer(comparison: Comparison) -> str:
    """The answer in one or two sentences: who is better by more than chance, and at what cost."""
    ranked = sorted(comparison.contestants, key=lambda each: -each.evaluation.metrics.accuracy)
    best, others = ranked[0], ranked[1:]
    scores = ", ".join(
        [f"is right on {_accuracy(best)} of the test images", *(f"{each.name} on {_accuracy(each)}" for each in others)]
    )
    beaten = [each.name for each in others if _is_better(best.name, each.name, comparison.pairs)]
    equals = [each.name for each in others if each.name not in beaten]
    if not others:
        return f"{best.name} {scores}; there is no other contestant to compare it with."
    if not beaten:
        found = f"No winner: {best.name} {scores}, a difference that may be chance."
    elif not equals:
        degree = "better" if len(others) == 1 else "the best"
        found = f"{best.name} is {degree}: it {scores}, more than chance explains."
    else:
        found = (
            f"{best.name} {scores}. It is better than {_listed(beaten)} by more than chance and cannot be told apart "
            f"from {_listed(equals)}."
        )
    return f"{found} {_cost_sentence(ranked)}"


def validation_sentence(comparison: Comparison) -> str | None:
    """Who was ahead on validation, by which models are chosen, and whether test bears it out; None of one alone."""
    if len(comparison.contestants) == 1:
        return None
    ahead = max(comparison.contestants, key=lambda each: each.summary.val_accuracy)
    lead = f"On validation {ahead.name} was ahead with {100 * ahead.summary.val_accuracy:.1f} %"
    unbeaten = [
        each.name
        for each in comparison.contestants
        if each is not ahead and not _is_better(ahead.name, each.name, comparison.pairs)
    ]
    if not unbeaten:
        return f"{lead}, and test bears it out."
    return f"{lead}; the test images do not show that it is better than {_listed(unbeaten, 'or')}."


def comparison_table(comparison: Comparison) -> pd.DataFrame:
    """One row per contestant: quality on test and cost; fractions, seconds, milliseconds, megabytes."""
    return pd.DataFrame(
        {
            "contestant": each.name,
            "timm": each.summary.timm,
            "accuracy": each.evaluation.metrics.accuracy,
            "accuracy_low": each.evaluation.metrics.accuracy_low,
            "accuracy_high": each.evaluation.metrics.accuracy_high,
            "confidence": each.evaluation.metrics.confidence,
            "images": each.evaluation.metrics.images,
            "macro_f1": each.evaluation.metrics.macro_f1,
            "negative_log_likelihood": each.evaluation.metrics.negative_log_likelihood,
            "expected_calibration_error": each.evaluation.metrics.expected_calibration_error,
            "val_accuracy": each.summary.val_accuracy,
            "best_epoch": each.summary.best_epoch,
            "seconds_per_epoch": each.summary.seconds_per_epoch,
            "parameters": each.evaluation.cost.parameters,
            "flops": each.evaluation.cost.flops,
            "latency_p50_ms": each.evaluation.cost.latency_p50_ms,
            "latency_p95_ms": each.evaluation.cost.latency_p95_ms,
            "throughput_images_per_second": each.evaluation.cost.throughput_images_per_second,
            "peak_memory_mb": each.evaluation.cost.peak_memory_mb,
        }
        for each in comparison.contestants
    )


def summary_numbers(comparison: Comparison) -> dict[str, float]:
    """Accuracy by contestant, difference and p value by pair, in one flat mapping for DVC and MLflow."""
    numbers = {f"accuracy_{each.name}": each.evaluation.metrics.accuracy for each in comparison.contestants}
    for pair in comparison.pairs:
        numbers[f"difference_{pair.first}_{pair.second}"] = pair.difference
        numbers[f"p_value_{pair.first}_{pair.second}"] = pair.adjusted_p_value
    return numbers


def write_tables(comparison: Comparison, folder: Path) -> None:
    """Write comparison.csv, significance.json and the flat summary.json for `dvc metrics show`."""
    folder.mkdir(parents=True, exist_ok=True)
    comparison_table(comparison).to_csv(folder / "comparison.csv", index=False)
    pairs = [
        asdict(pair) | {"better": pair.better, "sentence": sentence}
        for pair, sentence in zip(comparison.pairs, comparison.sentences, strict=True)
    ]
    _write_json(folder / "significance.json", {"answer": answer(comparison), "pairs": pairs})
    _write_json(folder / "summary.json", summary_numbers(comparison))


def _is_better(name: str, other: str, pairs: Sequence[PairedComparison]) -> bool:
    return any(pair.better == name and {pair.first, pair.second} == {name, other} for pair in pairs)


def _accuracy(contestant: Contestant) -> str:
    return f"{100 * contestant.evaluation.metrics.accuracy:.1f} %"


def _listed(names: Sequence[str], conjunction: str = "and") -> str:
    return f" {conjunction} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _cost_sentence(contestants: Sequence[Contestant]) -> str:
    fastest, *_, slowest = sorted(contestants, key=lambda each: each.summary.seconds_per_epoch)
    ratio = slowest.summary.seconds_per_epoch / fastest.summary.seconds_per_epoch
    if ratio < _SAME_TIME:
        return "Their epochs take about the same time."
    return f"An epoch of {slowest.name} takes {ratio:.1f} times as long as one of {fastest.name}."


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
