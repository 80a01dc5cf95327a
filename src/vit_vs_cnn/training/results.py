"""What a training leaves behind: history.csv and training.json."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from vit_vs_cnn.core.errors import UserError


@dataclass(frozen=True)
class Epoch:
    """One line of history.csv; accuracies are fractions, elapsed_seconds counts training and validation so far."""

    epoch: int
    elapsed_seconds: float
    epoch_seconds: float
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    images_per_second: float


def epoch_metrics(epoch: Epoch) -> dict[str, float]:
    """The metrics of an epoch by their names in MLflow, the same in trainings and in trials of a study."""
    return {
        "train/loss": epoch.train_loss,
        "train/accuracy": epoch.train_accuracy,
        "train/learning_rate": epoch.learning_rate,
        "val/loss": epoch.val_loss,
        "val/accuracy": epoch.val_accuracy,
        "time/elapsed_seconds": epoch.elapsed_seconds,
        "time/epoch_seconds": epoch.epoch_seconds,
        "time/images_per_second": epoch.images_per_second,
    }


class TrainingSummary(BaseModel):
    """training.json: the result and the cost of one training; seconds include validation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    timm: str
    parameters: int
    trainable_parameters: int
    epochs: int
    best_epoch: int
    val_accuracy: float
    val_loss: float
    seconds: float
    seconds_per_epoch: float
    images_per_second: float
    device: str
    precision: str
    train_images: int
    batch_size: int


def write_history(history: Sequence[Epoch], path: Path) -> None:
    """Write one line per epoch."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in history)


def write_summary(summary: TrainingSummary, path: Path) -> None:
    """Write training.json."""
    path.write_text(summary.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_summary(folder: Path) -> TrainingSummary:
    """Read training.json of a trained contestant's folder. Raises UserError where it is missing or damaged."""
    path = folder / "training.json"
    try:
        return TrainingSummary.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        raise UserError(f"{path}: missing or not of this version; run `dvc repro train@{folder.name}`.") from None
