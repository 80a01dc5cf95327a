"""The comparison of the contestants: one table, the paired tests, and the answer in words."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import points
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import evaluated, trained
from vit_vs_cnn.data.notes import UNBALANCED
from vit_vs_cnn.evaluation.pairs import PairedComparison, compare_all_pairs, verdict
from vit_vs_cnn.evaluation.results import Cost, Evaluation, read_cost, read_evaluation
from vit_vs_cnn.report.style import contestant_colour
from vit_vs_cnn.training.results import TrainingSummary, read_summary, selection_score

# Times of the same training differ by some percent from run to run.
_SAME_TIME = 1.1
# Contestants that differ by more in pretraining or size are not compared by their architecture alone.
_SAME_CONDITIONS = 2.0
# Fractions, seconds, milliseconds, megabytes; a name is a field of the training summary, the metrics or the cost.
_COLUMNS = (
    "contestant", "timm", "accuracy", "accuracy_low", "accuracy_high", "confidence", "images",
    "accuracy_without_duplicates", "duplicates_in_train", "macro_f1",
    "negative_log_likelihood", "expected_calibration_error", "val_accuracy", "best_epoch", "seconds_per_epoch",
    "parameters", "flops", "latency_p50_ms", "latency_p50_ms_low", "latency_p50_ms_high", "latency_p95_ms",
    "throughput_images_per_second", "throughput_images_per_second_low", "throughput_images_per_second_high",
    "peak_memory_mb",
)  # fmt: skip


@dataclass(frozen=True)
class Contestant:
    """The results of one contestant; `colour` is its colour in every figure, `history` has history.csv's columns."""

    name: str
    colour: str
    summary: TrainingSummary
    history: pd.DataFrame
    evaluation: Evaluation
    cost: Cost

    @property
    def accuracy(self) -> float:
        """The fraction of the test images that it classifies correctly."""
        return self.evaluation.metrics.accuracy


@dataclass(frozen=True)
class Comparison:
    """All contestants on the same test images, in the order of params.yaml, and each pair's tests."""

    contestants: tuple[Contestant, ...]
    pairs: tuple[PairedComparison, ...]

    @property
    def sentences(self) -> list[str]:
        """The result of each pair's tests in words."""
        return [verdict(pair, len(self.pairs)) for pair in self.pairs]

    def beaten_by(self, winner: Contestant) -> list[str]:
        """The contestants that `winner` is better than by more than chance."""
        rivals = [{pair.first, pair.second} for pair in self.pairs if pair.better == winner.name]
        return [other.name for other in self.contestants if {winner.name, other.name} in rivals]


def read_comparison(settings: Settings) -> Comparison:
    """Read the contestants of `settings` from trained/, evaluated/ and cost/ and test each pair.

    Raises UserError where something is missing or where they were not evaluated on the same images.
    """
    contestants = tuple(
        Contestant(
            name=name,
            colour=contestant_colour(settings.models, name),
            summary=read_summary(trained(name)),
            history=pd.read_csv(trained(name) / "history.csv"),
            evaluation=read_evaluation(evaluated(name)),
            cost=read_cost(name),
        )
        for name in settings.models
    )
    first = contestants[0]
    for other in contestants[1:]:
        if other.evaluation.predictions.names != first.evaluation.predictions.names:
            raise UserError(
                f"evaluated/{other.name}: was measured on other test images than {first.name}; "
                "run `dvc repro` to evaluate both on the present ones."
            )
    correct = {contestant.name: contestant.evaluation.predictions.correct[None] for contestant in contestants}
    groups = first.evaluation.predictions.group_codes
    pairs = compare_all_pairs(correct, settings.evaluate.confidence, settings.compare.margin, groups)
    return Comparison(contestants, tuple(pairs))


def answer(comparison: Comparison) -> str:
    """The answer in words: who is better by more than chance, at what cost, and what beside architecture differs."""
    best, *others = sorted(comparison.contestants, key=lambda contestant: -contestant.accuracy)
    scores = ", ".join(
        [f"is right on {points(best.accuracy)} % of the test images"]
        + [f"{other.name} on {points(other.accuracy)} %" for other in others]
    )
    small = _smallest_class_sentence([best, *others])
    if not others:
        return f"{best.name} {scores}; there is no other contestant to compare it with.{f' {small}' if small else ''}"
    beaten = comparison.beaten_by(best)
    tied = [other.name for other in others if other.name not in beaten]
    if not beaten:
        winner = f"No winner: {best.name} {scores}, a difference that may be chance."
    elif not tied:
        degree = "better" if len(others) == 1 else "the best"
        winner = f"{best.name} is {degree}: it {scores}, more than chance explains."
    else:
        winner = (
            f"{best.name} {scores}. It is better than {_listed(beaten)} by more than chance and cannot be told apart "
            f"from {_listed(tied)}."
        )
    sentences = [winner, small, _cost_sentence([best, *others]), _conditions_sentence(comparison.contestants)]
    return " ".join(sentence for sentence in sentences if sentence)


def validation_sentence(comparison: Comparison) -> str | None:
    """Who was ahead on validation, by which models are chosen, and whether test confirms it; None of one alone."""
    if len(comparison.contestants) == 1:
        return None
    select_by = comparison.contestants[0].summary.select_by
    ahead = max(comparison.contestants, key=lambda contestant: selection_score(contestant.summary, select_by))
    beaten = comparison.beaten_by(ahead)
    unbeaten = [other.name for other in comparison.contestants if other is not ahead and other.name not in beaten]
    score = selection_score(ahead.summary, select_by)
    shown = f"a loss of {-score:.3f}" if select_by == "nll" else f"{points(score)} %"
    metric = "" if select_by in ("accuracy", "nll") else f" {select_by.replace('_', ' ')}"
    lead = f"On validation {ahead.name} was ahead with {shown}{metric}"
    if not unbeaten:
        return f"{lead}, and test bears it out."
    return f"{lead}; the test images do not show that it is better than {_listed(unbeaten, 'or')}."


def training_sentences(comparison: Comparison) -> list[str]:
    """What to know of how the trainings ended: one that collapsed, and curves that were still rising."""
    sentences = [
        f"The training of {contestant.name} collapsed: it predicts one class for nearly all images. Its result says "
        "nothing of the architecture; try a tenth of its learning rate."
        for contestant in comparison.contestants
        if contestant.summary.collapsed
    ]
    rising = [contestant.name for contestant in comparison.contestants if contestant.summary.still_rising]
    if rising:
        sentences.append(
            f"Validation was still rising in the last epoch of {_listed(rising)}: more epochs may change the answer."
        )
    return sentences


def duplicates_sentence(comparison: Comparison) -> str | None:
    """How accurate they are without the test images that train has too; None where there are none."""
    metrics = {contestant.name: contestant.evaluation.metrics for contestant in comparison.contestants}
    first = next(iter(metrics.values()))
    if not first.duplicates_in_train:
        return None
    count = f"{first.duplicates_in_train:,} of the {first.images:,} test images"
    accuracies = {name: found.accuracy_without_duplicates for name, found in metrics.items()}
    without = [f"{name} {points(accuracy)} %" for name, accuracy in accuracies.items() if accuracy is not None]
    if not without:
        return f"Train has an identical or nearly identical image of all {count}: none is left to measure without them."
    return f"Train has an identical or nearly identical image of {count}; right on the others: {', '.join(without)}."


def views_sentences(comparison: Comparison) -> list[str]:
    """What several views of each image change, a sentence for each contestant that was evaluated with them."""
    measured = [(contestant, contestant.evaluation.metrics.views) for contestant in comparison.contestants]
    return [
        f"Averaged over {views.forwards} views of each image, at {views.forwards} times the time, {contestant.name} is "
        f"right on {points(views.accuracy)} % instead of {points(contestant.accuracy)} %: on {views.gained:,} images "
        f"more and {views.lost:,} fewer."
        for contestant, views in measured
        if views is not None
    ]


def comparison_table(comparison: Comparison) -> pd.DataFrame:
    """One row per contestant: quality on test and cost."""
    rows = [
        {"contestant": contestant.name}
        | contestant.summary.model_dump()
        | contestant.evaluation.metrics.model_dump()
        | contestant.cost.model_dump()
        for contestant in comparison.contestants
    ]
    return pd.DataFrame(rows)[list(_COLUMNS)]


def summary_numbers(comparison: Comparison) -> dict[str, float]:
    """Accuracy by contestant, difference and p value by pair, in one flat mapping for DVC and MLflow."""
    numbers = {f"accuracy_{contestant.name}": contestant.accuracy for contestant in comparison.contestants}
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
    contents = {"significance": {"answer": answer(comparison), "pairs": pairs}, "summary": summary_numbers(comparison)}
    for name, values in contents.items():
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


def _listed(names: Sequence[str], conjunction: str = "and") -> str:
    return f" {conjunction} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _smallest_class_sentence(contestants: Sequence[Contestant]) -> str | None:
    """The recall of the smallest class; None where the classes of test are balanced."""
    tables = {contestant.name: contestant.evaluation.per_class.query("images > 0") for contestant in contestants}
    images = tables[contestants[0].name]["images"].to_numpy()
    smallest = int(images.argmin())
    if images.max() <= UNBALANCED * images[smallest]:
        return None
    recalls = ", ".join(f"{name} {points(table['recall'].iloc[smallest])} %" for name, table in tables.items())
    name = tables[contestants[0].name]["class"].iloc[smallest]
    return f"Recall of {name}, the smallest class with {images[smallest]:,} test images: {recalls}."


def _cost_sentence(contestants: Sequence[Contestant]) -> str:
    fastest, *_, slowest = sorted(contestants, key=lambda contestant: contestant.summary.seconds_per_epoch)
    ratio = slowest.summary.seconds_per_epoch / fastest.summary.seconds_per_epoch
    if ratio < _SAME_TIME:
        return "Their epochs take about the same time."
    return f"An epoch of {slowest.name} takes {ratio:.1f} times as long as one of {fastest.name}."


def _conditions_sentence(contestants: Sequence[Contestant]) -> str | None:
    """What contestants differ in by more than a factor of two beside architecture; None where they do not."""
    seen_before = {contestant.name: contestant.summary.pretraining_images for contestant in contestants}
    sizes = {contestant.name: contestant.summary.parameters for contestant in contestants}
    differences = [
        f"{subject} ({', '.join(f'{name} {_rounded(count)}' for name, count in extremes.items())}{unit})"
        for subject, unit, extremes in (
            ("pretraining data", " images", _extremes(seen_before)),
            ("size", " parameters", _extremes(sizes)),
        )
        if extremes
    ]
    return f"They differ in {' and '.join(differences)}, so this is not architecture alone." if differences else None


def _extremes(counts: Mapping[str, int | None]) -> dict[str, int | None]:
    """The contestants of the largest and the smallest count where these differ too much, else none.

    None is an unknown count, which differs from every known one.
    """
    known = {name: count for name, count in counts.items() if count is not None}
    if not known:
        return {}
    unknown = next((name for name, count in counts.items() if count is None), None)
    largest, smallest = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    if known[largest] > _SAME_CONDITIONS * known[smallest]:
        return {largest: known[largest], smallest: known[smallest]}
    return {} if unknown is None else {unknown: None, largest: known[largest]}


def _rounded(count: int | None) -> str:
    """A count with two digits: 14M, 1.3M, 410k; "unknown" of None, "no" of 0."""
    if not count:
        return "unknown" if count is None else "no"
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= 0.95 * unit:
            return f"{count / unit:.{0 if count >= 9.95 * unit else 1}f}{letter}"
    return str(count)
