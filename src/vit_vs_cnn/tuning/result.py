"""What a study found: the best recipe, what it gains over the recipe as it was, and what the search cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.tuning.study import RECIPE_TRIAL, TuningStudy, seconds_of
from vit_vs_cnn.tuning.summary import TuningSummary


@dataclass(frozen=True)
class StudyResult:
    """The result of a study; `best` is the recipe's own trial where nothing was better."""

    best: FrozenTrial
    recipe: FrozenTrial
    trials: list[FrozenTrial]
    summary: TuningSummary

    @property
    def values(self) -> Mapping[str, Any]:
        """The drawn values of the best trial."""
        return self.best.params


def find_best(tuning: TuningStudy) -> StudyResult:
    """The result of a finished study. Raises UserError where every trial failed."""
    trials = tuning.trials()
    if not tuning.is_finished():
        raise RunError(f"{tuning.name}: the search ended before its budget was used up; start it again.")
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        reasons = sorted({str(trial.user_attrs.get("reason")) for trial in trials})
        raise UserError(f"models.{tuning.contestant}: all {len(trials)} trials failed, the first one so: {reasons[0]}")
    # Many trials can be equal on few validation images: then the lower loss, then the earlier one.
    best = min(complete, key=lambda trial: (-_value(trial), trial.user_attrs["val_loss"], trial.number))
    recipe = next(trial for trial in trials if trial.number == RECIPE_TRIAL)
    own = recipe.value if recipe.state == TrialState.COMPLETE else None
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    summary = TuningSummary(
        trials=len(trials),
        complete=len(complete),
        pruned=len(pruned),
        failed=len(trials) - len(complete) - len(pruned),
        epochs_per_trial=tuning.epochs,
        data_fraction=tuning.settings.tune.data_fraction,
        recipe_val_accuracy=own,
        best_val_accuracy=_value(best),
        gain=None if own is None else _value(best) - own,
        best_trial=best.number,
        seconds=sum(seconds_of(trial) for trial in trials),
        epochs_saved=sum(_epochs_left(trial, tuning.epochs) for trial in pruned),
        seconds_saved=sum(
            _epochs_left(trial, tuning.epochs) * seconds_of(trial) / trial.user_attrs["epochs"] for trial in pruned
        ),
        study=tuning.name,
    )
    return StudyResult(best, recipe, trials, summary)


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _epochs_left(trial: FrozenTrial, epochs: int) -> int:
    return epochs - int(trial.user_attrs["epochs"])
