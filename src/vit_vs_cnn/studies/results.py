"""What the runs of a study measured: a record for each run, and one tidy table of all."""

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PREPARED, evaluated, trained
from vit_vs_cnn.core.records import Record
from vit_vs_cnn.data.checks import Kind, read_checks
from vit_vs_cnn.data.dataset import read_info
from vit_vs_cnn.evaluation.replicates import Correct
from vit_vs_cnn.evaluation.results import read_evaluation
from vit_vs_cnn.studies.budget import steps_of
from vit_vs_cnn.studies.plan import Plan, PlannedRun
from vit_vs_cnn.training.results import read_summary

_REMEDY = "start the study again"


class Replicate(Record):
    """A training of a contestant with one seed, and what it reached on test.

    `attention` is the share of its operations in attention, None where it is not known; `correct` says for each test
    image whether it is right, as base64 of bits.
    """

    contestant: str
    timm: str
    seed: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    negative_log_likelihood: float
    expected_calibration_error: float
    val_accuracy: float
    train_seconds: float
    seconds_per_epoch: float
    epochs: int
    best_epoch: int
    steps: int
    parameters: int
    pretraining_images: int | None
    device: str
    collapsed: bool
    still_rising: bool
    attention: float | None
    convolutions: float
    test_images: int
    correct: str

    def right(self) -> Correct:
        """Whether each test image was classified correctly, bool (N,)."""
        bits = np.unpackbits(np.frombuffer(base64.b64decode(self.correct), np.uint8), count=self.test_images)
        return bits.astype(np.bool_)


class RunResult(Record):
    """runs/<name>.json of a run that was measured; `overrides` say with what, `seconds` how long this start took.

    `settings` is the digest of what it was planned with, `groups` a code for each test image's group, None where
    nothing is known of groups, `findings` count what was found while the data were prepared.
    """

    name: str
    overrides: tuple[str, ...]
    settings: str
    train_images: int
    val_images: int
    test_digest: str
    groups: tuple[int, ...] | None
    findings: dict[Kind, int]
    replicates: tuple[Replicate, ...]
    seconds: float


class RunFailure(Record):
    """runs/<name>.failed.json of a run that failed, and why, in the stage's own words."""

    name: str
    sentence: str


def collect(workspace: Path, run: PlannedRun, seconds: float) -> RunResult:
    """Read what a finished run left in its workspace. Raises UserError where something is missing."""
    info, replicates, groups = read_info(workspace / PREPARED), [], None
    for contestant in run.contestants:
        for seed in run.seeds:
            summary = read_summary(workspace / trained(contestant, seed))
            evaluation = read_evaluation(workspace / evaluated(contestant, seed))
            metrics, groups = evaluation.metrics, evaluation.predictions.group_codes
            correct = np.packbits(evaluation.predictions.correct)
            replicates.append(
                Replicate(
                    contestant=contestant,
                    timm=summary.timm,
                    seed=seed,
                    accuracy=metrics.accuracy,
                    accuracy_low=metrics.accuracy_low,
                    accuracy_high=metrics.accuracy_high,
                    macro_f1=metrics.macro_f1,
                    negative_log_likelihood=metrics.negative_log_likelihood,
                    expected_calibration_error=metrics.expected_calibration_error,
                    val_accuracy=summary.val_accuracy,
                    train_seconds=summary.seconds,
                    seconds_per_epoch=summary.seconds_per_epoch,
                    epochs=summary.epochs,
                    best_epoch=summary.best_epoch,
                    steps=summary.epochs * steps_of(info.splits["train"].images, summary.batch_size),
                    parameters=summary.parameters,
                    pretraining_images=summary.pretraining_images,
                    device=summary.device,
                    collapsed=summary.collapsed,
                    still_rising=summary.still_rising,
                    attention=summary.operation_shares.get("attention", 0.0) if summary.operation_shares else None,
                    convolutions=summary.operation_shares.get("convolutions", 0.0),
                    test_images=metrics.images,
                    correct=base64.b64encode(correct.tobytes()).decode("ascii"),
                )
            )
    return RunResult(
        name=run.name,
        overrides=run.overrides,
        settings=run.settings,
        train_images=info.splits["train"].images,
        val_images=info.splits["val"].images,
        test_digest=info.splits["test"].digest,
        groups=None if groups is None else tuple(groups.tolist()),
        findings=read_checks(workspace / PREPARED).counts,
        replicates=tuple(replicates),
        seconds=seconds,
    )


def record_result(folder: Path, result: RunResult | RunFailure) -> None:
    """Write the record of a run into a study's folder, in place of an earlier one."""
    done, failed = _files(folder, result.name)
    done.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(result, RunFailure):
        result.write(failed)
        return
    earlier = _read_done(done)
    if earlier is None or earlier != result.model_copy(update={"seconds": earlier.seconds}):
        result.write(done)  # what comes from the cache took longer before
    failed.unlink(missing_ok=True)


@dataclass(frozen=True)
class Results:
    """The plan of a study, the runs that were measured as planned, and the sentences of those that failed."""

    plan: Plan
    done: dict[str, RunResult]
    failed: dict[str, str]

    @property
    def open(self) -> list[PlannedRun]:
        """The runs without a result."""
        return [run for run in self.plan.runs if run.name not in self.done]


def read_results(folder: Path, plan: Plan) -> Results:
    """Read the records of the plan's runs; a result of other settings than planned now is none."""
    done, failed = {}, {}
    for run in plan.runs:
        done_file, failed_file = _files(folder, run.name)
        if failed_file.is_file():
            failed[run.name] = RunFailure.read(failed_file, _REMEDY).sentence
            continue
        result = _read_done(done_file)
        if result is not None and (result.overrides, result.settings) == (run.overrides, run.settings):
            done[run.name] = result
    return Results(plan, done, failed)


def results_table(results: Results) -> pd.DataFrame:
    """One row for each replicate: the value of each axis, what was measured, in the order of the plan.

    Accuracies are fractions; `train_images` is the number behind the axis `images`.
    """
    rows = []
    for run in results.plan.runs:
        result = results.done.get(run.name)
        for replicate in result.replicates if result else ():
            measured = replicate.model_dump(exclude={"contestant", "seed", "epochs", "correct"})
            measured["trained_epochs"] = replicate.epochs  # an axis may be called epochs
            images = {"train_images": result.train_images, "val_images": result.val_images} if result else {}
            named = {"run": run.name, "contestant": replicate.contestant, "seed": replicate.seed}
            rows.append({"study": results.plan.study, **run.values, **named, **images, **measured})
    return pd.DataFrame(rows)


def write_table(table: pd.DataFrame, folder: Path) -> None:
    """Write results.csv and results.parquet."""
    table.to_csv(folder / "results.csv", index=False)
    # A column of an axis may hold values of several types.
    mixed = {column: str for column in table.columns if table[column].dtype == object}
    table.astype(mixed).to_parquet(folder / "results.parquet", index=False)


def _read_done(path: Path) -> RunResult | None:
    """The record of a run, None where there is none or where another version wrote it: it is measured again."""
    try:
        return RunResult.read(path, _REMEDY) if path.is_file() else None
    except UserError:
        return None


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / "runs" / f"{name}.json", folder / "runs" / f"{name}.failed.json"
