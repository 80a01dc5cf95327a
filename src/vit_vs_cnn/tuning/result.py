"""The result of a study (the best recipe, its gain, the cost of the search), and the tracked run of the study."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from vit_vs_cnn.config.nested import merge, nest
from vit_vs_cnn.config.schema import ModelSettings, Settings
from vit_vs_cnn.config.search_space import CategoricalDimension, settings_path
from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.records import numbers_of
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.tracking.names import contestant_params, prefixed_metrics
from vit_vs_cnn.tracking.run import TrackedRun
from vit_vs_cnn.tuning.study import RECIPE_TRIAL, TuningStudy, seconds_of
from vit_vs_cnn.tuning.summary import TuningSummary


@dataclass(frozen=True)
class StudyResult:
    """The trials of a finished study; `best` is the recipe's own trial where no other was better.

    `study` is a copy in memory, as Optuna's plots take it.
    """

    study: Study
    best: FrozenTrial
    recipe: FrozenTrial
    trials: list[FrozenTrial]
    summary: TuningSummary


def study_result(tuning: TuningStudy) -> StudyResult:
    """The result of a finished study. Raises RunError where it is unfinished, UserError where every trial failed."""
    if not tuning.is_finished():
        raise RunError(f"{tuning.name}: the search ended before its budget was used up; start it again.")
    trials = tuning.trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    if not complete:
        reasons = [str(trial.user_attrs["reason"]) for trial in trials if "reason" in trial.user_attrs]
        raise UserError(f"models.{tuning.contestant}: all {len(trials)} trials failed, the first one so: {reasons[0]}")
    # Many trials can be equal on few validation images: then the lower loss decides, then the lower number.
    best = min(complete, key=lambda trial: (-_value(trial), trial.user_attrs["val_loss"], trial.number))
    recipe = next(trial for trial in trials if trial.number == RECIPE_TRIAL)
    best_accuracy = best.user_attrs["val_accuracy"]
    recipe_accuracy = recipe.user_attrs["val_accuracy"] if recipe.state == TrialState.COMPLETE else None
    epochs_saved = {trial.number: tuning.epochs - len(trial.intermediate_values) for trial in pruned}
    summary = TuningSummary(
        trials=len(trials),
        complete=len(complete),
        pruned=len(pruned),
        failed=len(trials) - len(complete) - len(pruned),
        epochs_per_trial=tuning.epochs,
        data_fraction=tuning.settings.tune.data_fraction,
        recipe_val_accuracy=recipe_accuracy,
        best_val_accuracy=best_accuracy,
        gain=None if recipe_accuracy is None else best_accuracy - recipe_accuracy,
        best_trial=best.number,
        select_by=tuning.settings.select_by,
        at_edge=tuple(_at_edge(tuning.settings, tuning.contestant, best.params)),
        seconds=sum(seconds_of(trial) for trial in trials),
        epochs_saved=sum(epochs_saved.values()),
        seconds_saved=sum(
            epochs_saved[trial.number] * seconds_of(trial) / len(trial.intermediate_values) for trial in pruned
        ),
        study=tuning.name,
    )
    return StudyResult(tuning.snapshot(), best, recipe, trials, summary)


def record_question(tracked: TrackedRun, tuning: TuningStudy, info: DatasetInfo) -> None:
    """Record what is searched, on what data, in the run of the study."""
    settings = tuning.settings
    space = settings.tune.space_of(tuning.contestant)
    tracked.log_params(
        contestant_params(settings, tuning.contestant)
        | {
            # Without what a later run of the same study may change, such as the device.
            "train": settings.train.model_dump(include={"patience", "precision"}),
            "tune": settings.tune.model_dump(include={"data_fraction", "sampler", "pruner"}),
            "tune.epochs": tuning.epochs,
            "tune.space": {path: dimension.model_dump(exclude_defaults=True) for path, dimension in space.items()},
        }
    )
    tracked.set_tags({"study": tuning.name})
    tracked.log_training_data(info)


def record_result(tracked: TrackedRun, result: StudyResult) -> None:
    """Record counts, times, the gain and the curves of the recipe and of the best trial in the run of the study."""
    numbers = numbers_of(result.summary)
    numbers.pop("recipe_val_accuracy", None)  # the name of a curve
    tracked.log_metrics(prefixed_metrics("tune", numbers))
    tracked.set_tags({f"best.{path}": str(value) for path, value in result.best.params.items()})
    select_by = result.summary.select_by
    sign = -1 if select_by == "nll" else 1  # trials are maximized
    for name, trial in ((f"recipe_val_{select_by}", result.recipe), (f"best_val_{select_by}_by_epoch", result.best)):
        for epoch, value in sorted(trial.intermediate_values.items()):
            tracked.log_metrics({f"tune/{name}": sign * value}, step=epoch)


def _at_edge(settings: Settings, contestant: str, values: Mapping[str, Any]) -> Iterator[str]:
    """The paths of values at the edge of their range, where the settings allow values beyond it."""
    space, model = settings.tune.space_of(contestant), settings.model(contestant).model_dump()
    for path, value in values.items():
        dimension = space[path]
        if isinstance(dimension, CategoricalDimension) or (outside := dimension.beyond(value)) is None:
            continue
        with suppress(ValidationError):
            ModelSettings.model_validate(merge(model, nest({settings_path(path): outside})))
            yield path


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value
