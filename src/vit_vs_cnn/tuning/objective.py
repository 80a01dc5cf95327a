"""One trial: train the contestant with the drawn values, report every epoch, stop where the pruner says so."""

import traceback
import uuid
from pathlib import Path
from typing import Any

from optuna.trial import Trial, TrialState

from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.config.schema import Settings, merge
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import read_info, read_split
from vit_vs_cnn.data.split import sample
from vit_vs_cnn.tracking.run import RunStatus, TrackedRun, start_child_run
from vit_vs_cnn.training.checkpoint import Checkpoints
from vit_vs_cnn.training.contestant import prepare_contestant, train_contestant
from vit_vs_cnn.training.results import Epoch
from vit_vs_cnn.tuning.claims import Ended, deaths_of
from vit_vs_cnn.tuning.space import with_values
from vit_vs_cnn.tuning.study import RECIPE_TRIAL, TuningStudy

# Killed so often by something other than the person, a trial will not fit the next time either.
_MOST_DEATHS = 3

# MLflow has no word for pruned: a run that was stopped is the nearest, and a tag says the truth.
_STATUS: dict[TrialState, RunStatus] = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.FAIL: "FAILED",
}


class TrainingObjective:
    """Callable with a trial; the value of a trial is the validation accuracy of its best epoch."""

    def __init__(self, tuning: TuningStudy, prepared: Path) -> None:
        """Open the data and build the contestant as it is, before any trial is touched.

        Raises UserError where `prepared` holds other data than the study is about, or where this machine lacks what
        the contestant needs: its trials would all fail, and be lost to the other workers.
        """
        self._tuning, self._name = tuning, tuning.contestant
        self._settings = _with_epochs(tuning.settings, tuning.epochs)
        info, tune = read_info(prepared), tuning.settings.tune
        if info.digest != tuning.data:
            raise UserError(
                f"{prepared}: the study {tuning.name} is about other data (digest {tuning.data[:12]}, here "
                f"{info.digest[:12]}): prepare the data with the study's settings."
            )
        self._info = info
        self._splits = (
            sample(read_split(prepared, "train"), tune.data_fraction, tuning.settings.seed),
            read_split(prepared, "val"),
        )
        prepare_contestant(self._settings, self._name, info, self._splits)

    def __call__(self, trial: Trial) -> Ended:
        """Work on the trial, from its checkpoint where there is one. Its run in MLflow ends before the trial does."""
        key = trial.user_attrs.get("run_key") or uuid.uuid4().hex
        trial.set_user_attr("run_key", key)
        checkpoints = Checkpoints(f"{self._tuning.name}-{trial.number}")
        whole = self._tuning.run_key
        try:
            with start_child_run(self._settings, "tune", self._name, f"trial-{trial.number}", key, whole) as tracked:
                tracked.log_params({"trial": trial.number, **trial.params})
                ended = self._work(_Attempt(self._tuning, trial, tracked), checkpoints)
                tracked.set_tags({f"trial.{key}": str(value) for key, value in ended.facts.items()})
                tracked.set_tags({"trial.state": ended.state.name.lower()})
                tracked.end(_STATUS[ended.state])
        except BaseException:
            checkpoints.close()
            raise
        # Not before Optuna has the end: a worker killed in between would train all of it again.
        return Ended(ended.state, ended.value, ended.facts, forget=checkpoints.remove)

    def _work(self, attempt: "_Attempt", checkpoints: Checkpoints) -> Ended:
        number = attempt.trial.number
        try:
            attempt.require_survivable()
            attempt.go_on(checkpoints)
            settings = with_values(self._settings, self._name, attempt.trial.params, f"trial {number}")
            job = prepare_contestant(settings, self._name, self._info, self._splits, quiet=True)
            summary = train_contestant(job, checkpoints, attempt.record).summary
        except _Pruned:
            reason = f"{self._settings.tune.pruner.name} stopped it after epoch {attempt.facts()['epochs']}"
            return Ended(TrialState.PRUNED, facts=attempt.facts() | {"reason": reason})
        except OSError:
            raise  # the machine's trouble, not the trial's
        except UserError as error:
            return Ended(TrialState.FAIL, facts=attempt.facts() | {"reason": str(error)})
        except Exception as error:
            traceback.print_exc()
            return Ended(TrialState.FAIL, facts=attempt.facts() | {"reason": f"{type(error).__name__}: {error}"})
        more = {"best_epoch": summary.best_epoch, "val_loss": summary.val_loss, "device": summary.device}
        return Ended(TrialState.COMPLETE, summary.val_accuracy, attempt.facts() | more)


class _Pruned(Exception):  # noqa: N818 - it reads as what happened
    pass


class _Attempt:
    """A trial being trained, and what is known of it so far."""

    def __init__(self, tuning: TuningStudy, trial: Trial, tracked: TrackedRun) -> None:
        self.trial = trial
        self._epochs, self._tracked = tuning.epochs, tracked
        self._reported = set(tuning.storage.optuna.get_trial(trial._trial_id).intermediate_values)
        self._history: list[Epoch] = []

    def require_survivable(self) -> None:
        """Raise UserError where the trial's process was killed too often to try once more."""
        deaths = deaths_of(self.trial)
        if deaths >= _MOST_DEATHS:
            raise UserError(
                f"its process was killed {deaths} times before it came any further, most likely for want of memory: "
                "lower batch_size or the network's size in the search space."
            )

    def go_on(self, checkpoints: Checkpoints) -> None:
        """Take up the epochs that a killed worker trained; it may not have come to report the last of them."""
        _, history = checkpoints.file.load()
        for epoch in history:
            self.record(epoch)

    def record(self, epoch: Epoch) -> None:
        """Report an epoch; raises _Pruned where the pruner wants no more of them."""
        self._history.append(epoch)
        if epoch.epoch not in self._reported:
            values = {key: value for key, value in epoch.model_dump().items() if key != "epoch"}
            self._tracked.log_metrics(values, step=epoch.epoch)
            self.trial.report(epoch.val_accuracy, epoch.epoch)
            self._reported.add(epoch.epoch)
        # The recipe as it is runs to its end: the gain is measured against all of it.
        is_last = epoch.epoch == max(self._reported)
        if is_last and epoch.epoch < self._epochs and self.trial.number != RECIPE_TRIAL and self.trial.should_prune():
            raise _Pruned

    def facts(self) -> dict[str, Any]:
        """Epochs and seconds so far."""
        return {"epochs": len(self._history), "seconds": self._history[-1].elapsed_seconds if self._history else 0.0}


def _with_epochs(settings: Settings, epochs: int) -> Settings:
    # Many devices search by a worker each.
    return parse_settings(merge(settings.model_dump(), {"train": {"epochs": epochs, "devices": 1}}))
