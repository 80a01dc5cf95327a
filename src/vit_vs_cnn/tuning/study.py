"""A study: the question it answers, its name in the storage, its trials and its budget."""

import copy
import json
import socket
import uuid
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.records import digest_of
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.tuning.sampling import make_pruner, make_sampler, recipe_values
from vit_vs_cnn.tuning.storage import storage_lock

# The trial of the recipe as it is. It is never pruned, because the gain is measured against all of it.
RECIPE_TRIAL = 0

_CODE = ("tuning/sampling.py", "tuning/objective.py")
_RETRY = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)


@dataclass(frozen=True)
class TuningStudy:
    """An open study with the settings that it is about; the storage keeps them, so that any machine can join.

    `data_digest` is the digest of the prepared data, `run_key` the key of the tracked run of the whole study.
    """

    study: Study
    storage: RDBStorage
    settings: Settings
    contestant: str
    data_digest: str
    run_key: str

    @property
    def name(self) -> str:
        """The study's name in the storage."""
        return self.study.study_name

    @property
    def epochs(self) -> int:
        """The epochs of one trial."""
        return self.settings.tune.epochs or self.settings.train.epochs

    @property
    def max_trials(self) -> int:
        """The number of finished trials that the study ends with; a later run with a larger `tune.trials` raises it."""
        return int(_tune_settings(self.study.user_attrs)["trials"])

    def trials(self) -> list[FrozenTrial]:
        """The trials that count towards the budget, by number.

        Optuna repeats a trial whose process was interrupted or killed as another trial. Only the last attempt counts,
        under the number of the first one.
        """
        trials = self._last_attempts()
        for trial in trials:
            trial.number = number_of(trial)
        return sorted(trials, key=lambda trial: trial.number)

    def snapshot(self) -> Study:
        """A copy of the study in memory with the numbers of `trials`; interrupted attempts have the other numbers."""
        trials = self.study.get_trials()
        next_attempts = {history[-1]: trial.number for trial in trials if (history := _RETRY.retry_history(trial))}
        for trial in trials:
            trial.number = next_attempts.get(trial.number, number_of(trial))
        snapshot = optuna.create_study(study_name=self.name, direction="maximize")
        snapshot.add_trials(sorted(trials, key=lambda trial: trial.number))
        return snapshot

    def is_finished(self) -> bool:
        """Whether the budget is used up and no trial is unfinished."""
        trials = self.trials()
        return self._is_used_up(trials) and all(is_finished(trial) for trial in trials)

    def lock(self) -> AbstractContextManager[None]:
        """The lock under which a worker takes its next trial."""
        return storage_lock(self.storage.url, self.name)

    def can_begin_trial(self) -> bool:
        """Whether `study.optimize` would begin a trial within the budget, be it a repeated one or a new one.

        The caller holds the study's lock, from before this call until its trial has begun.
        """
        fail_stale_trials(self.study)
        # Its worker was killed before it released the lock, or before the first heartbeat.
        self._fail_running_trials(worker=None)
        for trial in self._last_attempts():
            if _is_interrupted(trial):
                trial.user_attrs = {name: value for name, value in trial.user_attrs.items() if name != "worker"}
                _RETRY(self.study, trial)
        trials = self.study.get_trials(deepcopy=False)
        if not any(trial.state == TrialState.WAITING for trial in trials) and self._is_used_up(self.trials()):
            return False
        self.study.sampler = make_sampler(self.settings.tune.sampler, self.settings.seed, len(trials))
        return True

    def release_trial(self, pid: int) -> None:
        """Have the trial of a killed worker of this host repeated at once, before its heartbeat is missed."""
        with self.lock():
            self._fail_running_trials(worker_name(pid))

    def _last_attempts(self) -> list[FrozenTrial]:
        # Workers ask before each trial, also in a study of thousands: of these only what is changed here is copied.
        trials = self.study.get_trials(deepcopy=False)
        repeated = {number for trial in trials for number in _RETRY.retry_history(trial)}
        return [copy.copy(trial) for trial in trials if trial.number not in repeated]

    def _fail_running_trials(self, worker: str | None) -> None:
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("worker") == worker:
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _is_used_up(self, trials: list[FrozenTrial]) -> bool:
        tune = _tune_settings(self.study.user_attrs)
        if tune["seconds"] is not None and sum(seconds_of(trial) for trial in trials) >= tune["seconds"]:
            return True
        return len(trials) >= int(tune["trials"])


def open_study(storage: RDBStorage, settings: Settings, contestant: str, info: DatasetInfo) -> TuningStudy:
    """Open the study of what is the best recipe of the contestant, and create it where there is none.

    Its name is made of all that the answer depends on: the same question continues the old study, any other question
    begins a new one.
    """
    name = f"{settings.data.name}-{contestant}-{_question_digest(settings, contestant, info)}"
    with storage_lock(storage.url, name):
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
        study.set_user_attr("settings", settings.model_dump_json())
        if "run_key" not in study.user_attrs:
            study.enqueue_trial(recipe_values(settings, contestant), skip_if_exists=True)
            study.set_user_attr("contestant", contestant)
            study.set_user_attr("data_digest", info.digest)
            study.set_user_attr("code_digest", _code_digest())
            study.set_user_attr("run_key", uuid.uuid4().hex)
    return load_study(storage, name)


def load_study(storage: RDBStorage, name: str) -> TuningStudy:
    """Open an existing study by its name."""
    study = optuna.load_study(study_name=name, storage=storage)
    attributes = study.user_attrs
    settings = parse_settings(json.loads(attributes["settings"]), name)
    study.pruner = make_pruner(settings.tune.pruner, settings.tune.epochs or settings.train.epochs)
    return TuningStudy(
        study, storage, settings, attributes["contestant"], attributes["data_digest"], attributes["run_key"]
    )


def find_study(storage: RDBStorage, contestant: str) -> TuningStudy:
    """Open the unfinished study of the contestant that was begun last, by this version of the code.

    Raises UserError where there is none.
    """
    other_code = 0
    for summary in reversed(optuna.get_all_study_summaries(storage, include_best_trial=False)):
        attributes = summary.user_attrs
        if attributes.get("contestant") != contestant or "run_key" not in attributes:
            continue
        if attributes["code_digest"] != _code_digest():
            other_code += summary.n_trials < _tune_settings(attributes)["trials"]
        elif not (tuning := load_study(storage, summary.study_name)).is_finished():
            return tuning
    reason = "`vit-vs-cnn run --set tune.trials=20` begins one; OPTUNA_STORAGE has to be the same on every machine"
    if other_code:
        reason = "the unfinished ones were begun by another version of the code: check out the same commit here"
    raise UserError(f"{contestant}: no study to join in {storage.url}: {reason}.")


def number_of(trial: FrozenTrial) -> int:
    """The trial's number, which it keeps when it is repeated."""
    number = _RETRY.retried_trial_number(trial)
    return trial.number if number is None else number


def worker_name(pid: int) -> str:
    """The name of the worker that is process `pid` of this host; a trial has that of its worker."""
    return f"{socket.gethostname()}:{pid}"


def seconds_of(trial: FrozenTrial) -> float:
    """The seconds of training and validation that a trial has taken."""
    return float(trial.user_attrs.get("seconds", 0.0))


def is_finished(trial: FrozenTrial) -> bool:
    """Whether the trial is complete, pruned, or failed through its own fault."""
    return trial.state.is_finished() and not _is_interrupted(trial)


def _is_interrupted(trial: FrozenTrial) -> bool:
    """Whether the trial's process was interrupted or killed: what fails through its own fault has a reason."""
    return trial.state == TrialState.FAIL and "reason" not in trial.user_attrs


def _tune_settings(attributes: dict[str, Any]) -> dict[str, Any]:
    tune: dict[str, Any] = json.loads(attributes["settings"])["tune"]
    return tune


def _question_digest(settings: Settings, contestant: str, info: DatasetInfo) -> str:
    tune = settings.tune
    facts: dict[str, Any] = {
        "data": [info.splits["train"].digest, info.splits["val"].digest, info.decoding.in_chans],
        "seed": settings.seed,
        "select_by": settings.select_by,
        "model": settings.model(contestant).model_dump(),
        "space": [[path, dimension.model_dump()] for path, dimension in settings.tune.space_of(contestant).items()],
        "trial": [tune.epochs or settings.train.epochs, tune.data_fraction, settings.train.patience],
        "precision": settings.train.precision,
        "search": [tune.sampler.model_dump(), tune.pruner.model_dump()],
        "code": _code_digest(),
    }
    return digest_of(json.dumps(facts, sort_keys=True).encode())[:12]


def _code_digest() -> str:
    from vit_vs_cnn.training.checkpoint import code_digest

    return code_digest(*_CODE)
