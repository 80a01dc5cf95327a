"""A study: the question it answers, its name in the storage, its budget."""

import json
import uuid
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.records import digest_of
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.training.checkpoint import code_digest
from vit_vs_cnn.tuning.sampling import make_pruner, make_sampler
from vit_vs_cnn.tuning.storage import StudyStorage

# The first trial is the recipe as it is.
RECIPE_TRIAL = 0

_CODE = ("tuning/sampling.py", "tuning/space.py", "tuning/objective.py")
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Budget:
    """Finished trials in all, and the seconds (None: any number) after which no further trial begins."""

    trials: int
    seconds: float | None

    def is_used_up(self, trials: list[FrozenTrial]) -> bool:
        """Whether no trial may begin beside `trials`, those that are running included."""
        if len(trials) >= self.trials:
            return True
        return self.seconds is not None and sum(seconds_of(trial) for trial in trials) >= self.seconds


@dataclass(frozen=True)
class TuningStudy:
    """An open study and what it is about; the storage keeps all of it, so that any machine can join.

    `data` is the digest of the prepared data, `run_key` identifies the tracked run of the whole study.
    """

    study: Study
    storage: StudyStorage
    settings: Settings
    contestant: str
    data: str
    run_key: str

    @property
    def name(self) -> str:
        """The study's name in the storage."""
        return self.study.study_name

    @property
    def budget(self) -> Budget:
        """The budget as it is now: raising `tune.trials` gives a study that is going on more to do."""
        return Budget(**self.study.user_attrs["budget"])

    @property
    def epochs(self) -> int:
        """The epochs of one trial."""
        return self.settings.tune.epochs or self.settings.train.epochs

    def trials(self) -> list[FrozenTrial]:
        """All trials that have begun."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]

    def is_finished(self) -> bool:
        """Whether the budget is used up and no trial is running."""
        trials = self.trials()
        return self.budget.is_used_up(trials) and all(trial.state in _FINISHED for trial in trials)


def open_study(storage: StudyStorage, settings: Settings, name: str, info: DatasetInfo) -> TuningStudy:
    """The study that answers what is the best recipe of contestant `name`; it is created where nobody asked before.

    Its name is made of all that the answer depends on, so the same question goes on with the old study and a changed
    one starts a new one.
    """
    question = _question(settings, name, info)
    study_name = f"{settings.data.name}-{name}-{question}"
    with storage.lock(study_name):
        study = _load_or_create(storage, settings, study_name)
        if "run_key" not in study.user_attrs:
            study.set_user_attr("settings", settings.model_dump_json())
            study.set_user_attr("contestant", name)
            study.set_user_attr("data", info.digest)
            study.set_user_attr("code", _code())
            study.set_user_attr("run_key", uuid.uuid4().hex)
        study.set_user_attr("budget", {"trials": settings.tune.trials, "seconds": settings.tune.seconds})
    return TuningStudy(study, storage, settings, name, info.digest, study.user_attrs["run_key"])


def find_study(storage: StudyStorage, contestant: str) -> TuningStudy:
    """The study of `contestant` that was begun last, by this version of the code, and is not finished.

    Raises UserError where there is none.
    """
    code, others = _code(), 0
    found = []
    for summary in optuna.get_all_study_summaries(storage.optuna, include_best_trial=False):
        attributes = summary.user_attrs
        if attributes.get("contestant") != contestant or "budget" not in attributes:
            continue
        if attributes["code"] == code:
            found.append(load_study(storage, summary.study_name))
        elif summary.n_trials < attributes["budget"]["trials"]:
            others += 1
    unfinished = [study for study in found if not study.is_finished()]
    if unfinished:
        return unfinished[-1]
    if others:
        raise UserError(
            f"{contestant}: the studies that are going on in {storage.shown} were begun by another version of the "
            "code, and trials of this one could not be compared: check out the same commit here."
        )
    raise UserError(
        f"{contestant}: no study to join in {storage.shown}: none is going on. `vit-vs-cnn run --set tune.trials=20` "
        "begins one; workers on other machines need OPTUNA_STORAGE to be the same there."
    )


def load_study(storage: StudyStorage, study_name: str) -> TuningStudy:
    """The study of that name, which exists."""
    attributes = optuna.load_study(study_name=study_name, storage=storage.optuna).user_attrs
    settings = parse_settings(json.loads(attributes["settings"]), study_name)
    study = _load_or_create(storage, settings, study_name)
    return TuningStudy(study, storage, settings, attributes["contestant"], attributes["data"], attributes["run_key"])


def seconds_of(trial: FrozenTrial) -> float:
    """The seconds of training and validation that a trial took so far."""
    return float(trial.user_attrs.get("seconds", 0.0))


def _load_or_create(storage: StudyStorage, settings: Settings, study_name: str) -> Study:
    tune = settings.tune
    study = optuna.create_study(
        study_name=study_name,
        storage=storage.optuna,
        sampler=make_sampler(tune.sampler, settings.seed),
        pruner=make_pruner(tune.pruner, tune.epochs or settings.train.epochs),
        direction="maximize",
        load_if_exists=True,
    )
    # Hyperband sets itself up at its first decision, and until then takes all trials for one bracket: a worker that
    # has just started would draw otherwise than one that has been at it.
    study.pruner.prune(study, optuna.trial.create_trial(state=TrialState.RUNNING))
    return study


def _question(settings: Settings, name: str, info: DatasetInfo) -> str:
    tune = settings.tune
    facts: dict[str, Any] = {
        "data": [info.splits["train"].digest, info.splits["val"].digest],
        "seed": settings.seed,
        "model": settings.model(name).model_dump(),
        "space": [[path, dimension.model_dump()] for path, dimension in settings.space(name).items()],
        "trial": [tune.epochs or settings.train.epochs, tune.data_fraction, settings.train.patience],
        "precision": settings.train.precision,
        "search": [tune.sampler.model_dump(), tune.pruner.model_dump()],
        "code": _code(),
    }
    return digest_of(json.dumps(facts, sort_keys=True).encode())[:12]


def _code() -> str:
    return code_digest(*_CODE)
