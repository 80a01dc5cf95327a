"""tuned/<model>.json: what a search gained and cost, in numbers."""

from pydantic import BaseModel, ConfigDict, ValidationError

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import tuning_summary


class TuningSummary(BaseModel):
    """tuned/<model>.json: accuracies are fractions of the validation images, times are seconds.

    Without a search all counts are 0 and the accuracies None; `recipe_val_accuracy` is None too where the recipe as
    it is failed. `epochs_saved` are those that pruned trials did not train, `seconds_saved` what they would have
    taken at the pace of each trial.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    epochs_per_trial: int = 0
    data_fraction: float = 1.0
    recipe_val_accuracy: float | None = None
    best_val_accuracy: float | None = None
    gain: float | None = None
    best_trial: int | None = None
    seconds: float = 0.0
    epochs_saved: int = 0
    seconds_saved: float = 0.0
    study: str | None = None


def write_tuning_summary(summary: TuningSummary, name: str) -> None:
    """Write tuned/<model>.json."""
    tuning_summary(name).write_text(summary.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_tuning_summary(name: str) -> TuningSummary:
    """Read tuned/<model>.json. Raises UserError where it is missing or damaged."""
    path = tuning_summary(name)
    try:
        return TuningSummary.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        raise UserError(f"{path}: missing or not of this version; run `dvc repro tune@{name}`.") from None
