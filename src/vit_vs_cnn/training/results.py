"""The records of a training: history.csv with a row per epoch, and training.json."""

import csv
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import trained
from vit_vs_cnn.core.records import Record


class Epoch(Record):
    """A row of history.csv; accuracies are fractions, elapsed_seconds counts training and validation so far.

    `val_top_share` is the share of validation images with the most frequent prediction.
    """

    epoch: int
    elapsed_seconds: float
    epoch_seconds: float
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_balanced_accuracy: float
    val_macro_f1: float
    val_top_share: float
    images_per_second: float


def epoch_metrics(epoch: Epoch) -> dict[str, float]:
    """The metrics of an epoch by their names in MLflow, the same in trainings and in trials of a study."""
    return {
        "train/loss": epoch.train_loss,
        "train/accuracy": epoch.train_accuracy,
        "train/learning_rate": epoch.learning_rate,
        "val/loss": epoch.val_loss,
        "val/accuracy": epoch.val_accuracy,
        "val/balanced_accuracy": epoch.val_balanced_accuracy,
        "val/macro_f1": epoch.val_macro_f1,
        "time/elapsed_seconds": epoch.elapsed_seconds,
        "time/epoch_seconds": epoch.epoch_seconds,
        "time/images_per_second": epoch.images_per_second,
    }


def refit_metrics(epoch: Epoch) -> dict[str, float]:
    """The metrics of an epoch of a refit by their names in MLflow; it has no images to validate on."""
    return {
        "refit/loss": epoch.train_loss,
        "refit/accuracy": epoch.train_accuracy,
        "refit/learning_rate": epoch.learning_rate,
        "refit/elapsed_seconds": epoch.elapsed_seconds,
    }


class TrainingSummary(Record):
    """training.json: the result and the cost of one training; seconds include validation.

    The validation figures are those of the best epoch, which was chosen by `select_by`. With `refit` the weights are
    those of a second training on `train_images` images of train and val; it counts in `seconds`, and no validation
    figure is its own. `collapsed` and `still_rising` say how the training ended (training/outcome.py).
    `operation_shares` is what models/operations.py measured, `temperature` divides the logits of the model. Results of
    earlier versions lack what has a default.
    """

    model: str
    seed: int = 0
    timm: str
    parameters: int
    trainable_parameters: int
    epochs: int
    best_epoch: int
    val_accuracy: float
    val_loss: float
    val_balanced_accuracy: float | None = None
    val_macro_f1: float | None = None
    select_by: str = "accuracy"
    seconds: float
    seconds_per_epoch: float
    images_per_second: float
    device: str
    precision: str
    train_images: int
    batch_size: int
    pretraining_data: str = "unknown"
    pretraining_images: int | None = None
    operation_shares: dict[str, float] = Field(default_factory=dict)
    temperature: float = 1.0
    refit: bool = False
    collapsed: bool = False
    still_rising: bool = False


def selection_score(result: Epoch | TrainingSummary, select_by: str) -> float:
    """What is compared on validation, higher is better: a score by its name, or for nll its negative.

    Raises UserError for a score that a training of an earlier version did not record.
    """
    score: float | None = -result.val_loss if select_by == "nll" else getattr(result, f"val_{select_by}")
    if score is None:
        assert isinstance(result, TrainingSummary)  # every epoch has all scores
        raise UserError(
            f"select_by: the training of {result.model} did not record {select_by} on val; train it again: "
            f"`dvc repro --force train@{result.model}-{result.seed}`."
        )
    return score


def score_text(score: float, select_by: str) -> str:
    """A selection score as it is shown."""
    return f"nll {-score:.4f}" if select_by == "nll" else f"{score:6.2%}"


def best_epoch(history: Sequence[Epoch], select_by: str) -> Epoch:
    """The epoch of the highest selection score; among equals the lower loss, then the earlier one."""
    return min(history, key=lambda row: (-selection_score(row, select_by), row.val_loss, row.epoch))


def write_history(history: Sequence[Epoch], path: Path) -> None:
    """Write history.csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(Epoch.model_fields))
        writer.writeheader()
        writer.writerows(row.model_dump() for row in history)


def read_summary(folder: Path) -> TrainingSummary:
    """Read training.json of a replicate's folder. Raises UserError where it is missing or not valid."""
    return TrainingSummary.read(folder / "training.json", f"run `dvc repro train@{folder.parent.name}-{folder.name}`")


def choose_replicate(settings: Settings, contestant: str) -> TrainingSummary:
    """The best replicate of a contestant by validation, among equals the earlier seed: it stands for the others.

    Raises UserError where one has not been trained.
    """
    summaries = [read_summary(trained(contestant, seed)) for seed in settings.seeds]
    return max(summaries, key=lambda summary: selection_score(summary, settings.select_by))


def summary_metrics(summary: TrainingSummary) -> dict[str, float]:
    """The metrics of a finished training by their names in MLflow."""
    return {
        "best/val_accuracy": summary.val_accuracy,
        "best/val_loss": summary.val_loss,
        "best/epoch": summary.best_epoch,
        "best/temperature": summary.temperature,
        "cost/parameters": summary.parameters,
        "cost/seconds_per_epoch": summary.seconds_per_epoch,
    }
