"""The objective of a study: train the contestant with a trial's values, from its checkpoint where there is one."""

import uuid
from pathlib import Path

from optuna.exceptions import TrialPruned
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from vit_vs_cnn.config.load import changed, with_values
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import read_info, read_split
from vit_vs_cnn.data.split import sample
from vit_vs_cnn.tracking.run import TrackedRun, start_run
from vit_vs_cnn.training.checkpoint import Checkpoint, open_checkpoint
from vit_vs_cnn.training.contestant import prepare_contestant, train_contestant
from vit_vs_cnn.training.results import Epoch, epoch_metrics, selection_score
from vit_vs_cnn.tuning.study import RECIPE_TRIAL, TuningStudy, number_of


class TrainingObjective:
    """Callable with a trial; its value is the selection score (`select_by`) of the best epoch on validation."""

    def __init__(self, tuning: TuningStudy, prepared: Path) -> None:
        """Read the data and build the contestant as it is, before any trial begins.

        Raises UserError where `prepared` holds other data than the study is about, or where this machine lacks what
        the contestant needs: its trials would all fail.
        """
        self._tuning, self._contestant = tuning, tuning.contestant
        # A trial uses one device: several devices are used by several workers.
        budget = {"epochs": tuning.epochs, "devices": 1, "nodes": 1, "refit": False}
        self._settings = changed(tuning.settings, {"train": budget})
        self._info = read_info(prepared)
        if self._info.digest != tuning.data_digest:
            raise UserError(
                f"{prepared}: the study {tuning.name} is about other data (digest {tuning.data_digest[:12]}, here "
                f"{self._info.digest[:12]}): prepare the data with the study's settings."
            )
        train = sample(read_split(prepared, "train"), self._settings.tune.data_fraction, self._settings.seed)
        self._splits = (train, read_split(prepared, "val"))
        prepare_contestant(self._settings, self._contestant, self._info, self._splits)

    def __call__(self, trial: Trial) -> float:
        """Train and return the value. Raises TrialPruned where the pruner stops the trial."""
        earlier = self._tuning.storage.get_trial(trial._trial_id)
        number, study_key = number_of(earlier), self._tuning.run_key
        # A repeated trial continues the run of its first attempt.
        key = uuid.uuid5(uuid.UUID(study_key), str(number)).hex
        child, state = {"key": key, "part": f"trial-{number}", "parent": study_key}, "fail"
        with (
            open_checkpoint(self._checkpoint_name(earlier), keep=True) as checkpoint,
            start_run(self._settings, "tune", self._contestant, **child) as tracked,
        ):
            tracked.log_params({"trial": number, **trial.params})
            try:
                value = self._train(trial, earlier, checkpoint, tracked)
                state = "complete"
            except TrialPruned as error:
                state = "pruned"
                tracked.set_tags({"trial.reason": str(error)})
                tracked.end("KILLED")  # MLflow has no status for pruned
                raise
            finally:
                tracked.set_tags({"trial.state": state})
        return value

    def remove_checkpoint(self, study: Study, trial: FrozenTrial) -> None:
        """Remove the checkpoint of a finished trial: not before Optuna has its end, which a kill could prevent."""
        with open_checkpoint(self._checkpoint_name(trial)):
            pass  # it is removed at the end

    def _checkpoint_name(self, trial: FrozenTrial) -> str:
        return f"{self._tuning.name}-{number_of(trial)}"

    def _train(self, trial: Trial, earlier: FrozenTrial, checkpoint: Checkpoint, tracked: TrackedRun) -> float:
        number, reported = number_of(earlier), set(earlier.intermediate_values)

        def on_epoch(epoch: Epoch) -> None:
            trial.set_user_attr("seconds", epoch.elapsed_seconds)
            if epoch.epoch not in reported:
                tracked.log_metrics(epoch_metrics(epoch), step=epoch.epoch)
                trial.report(selection_score(epoch, self._settings.select_by), epoch.epoch)
                reported.add(epoch.epoch)
            may_prune = number != RECIPE_TRIAL and max(reported) == epoch.epoch < self._tuning.epochs
            if may_prune and trial.should_prune():
                raise TrialPruned(f"{self._settings.tune.pruner.name} stopped it after epoch {epoch.epoch}")

        _, history = checkpoint.load()
        for epoch in history:
            on_epoch(epoch)  # a killed worker may not have reported the last one
        settings = with_values(self._settings, self._contestant, trial.params, f"trial {number}")
        job = prepare_contestant(settings, self._contestant, self._info, self._splits, quiet=True)
        summary = train_contestant(job, checkpoint, on_epoch).summary
        trial.set_user_attr("val_loss", summary.val_loss)
        trial.set_user_attr("val_accuracy", summary.val_accuracy)
        tracked.set_tags({"trial.best_epoch": str(summary.best_epoch), "trial.device": summary.device})
        return selection_score(summary, self._settings.select_by)
