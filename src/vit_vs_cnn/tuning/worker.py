"""A worker of a study: it runs trials until the study's budget is used up.

`python -m vit_vs_cnn.tuning.worker STUDY PREPARED` is one as a process; tune.workers says how many there are.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from optuna.exceptions import OptunaError, TrialPruned
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from vit_vs_cnn.core.errors import TransientError, UserError, write_error_report
from vit_vs_cnn.tuning.sampling import suggest
from vit_vs_cnn.tuning.storage import open_storage, storage_url
from vit_vs_cnn.tuning.study import TuningStudy, load_study, worker_name

Objective = Callable[[Trial], float]

_POLL_SECONDS = 0.5
# A trial whose process was killed so often in the same epoch would be killed the next time too.
_MAX_ATTEMPTS = 3


class TrialFailedError(Exception):
    """A trial failed through its own fault, which does not concern the other trials."""


def work(
    tuning: TuningStudy, objective: Objective, on_end: Callable[[Study, FrozenTrial], None] = lambda *_: None
) -> None:
    """Run trial after trial until the budget is used up and no trial is unfinished.

    `objective` returns the value of a trial or raises TrialPruned. Any other exception is the trial's own failure, but
    for OSError, TransientError, Optuna's errors and Ctrl-C: these end the worker, and the trial will be repeated.
    """
    while not tuning.is_finished():
        with ExitStack() as lock:
            lock.enter_context(tuning.lock())
            if tuning.can_begin_trial():
                run = partial(_run, tuning, objective, lock)
                tuning.study.optimize(run, n_trials=1, catch=TrialFailedError, callbacks=[on_end])
                continue
        time.sleep(_POLL_SECONDS)  # other workers run the last trials


def _run(tuning: TuningStudy, objective: Objective, lock: ExitStack, trial: Trial) -> float:
    suggest(trial, tuning.settings.tune.space_of(tuning.contestant))
    trial.set_user_attr("worker", worker_name(os.getpid()))
    lock.close()  # the trial counts from now on, so other workers may begin theirs
    try:
        _limit_attempts(tuning, trial)
        return objective(trial)
    except TrialPruned:
        raise
    except (KeyboardInterrupt, OSError, OptunaError, TransientError):
        trial.set_user_attr("attempts", None)
        raise
    except Exception as error:
        reason = str(error)
        if not isinstance(error, UserError):
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
        trial.set_user_attr("reason", reason)
        raise TrialFailedError(reason) from error


def _limit_attempts(tuning: TuningStudy, trial: Trial) -> None:
    """Count the attempts that began after the same epoch. Raises UserError where these are too many."""
    epochs = len(tuning.storage.get_trial(trial._trial_id).intermediate_values)
    last_epochs, attempts = trial.user_attrs.get("attempts") or (epochs, 0)
    if last_epochs != epochs:
        attempts = 0
    if attempts == _MAX_ATTEMPTS:
        raise UserError(
            f"its process was killed {attempts} times in the same epoch, most likely for lack of memory: lower "
            "batch_size or the network's size in the search space."
        )
    trial.set_user_attr("attempts", (epochs, attempts + 1))


def _main(study_name: str, prepared: Path) -> None:
    from vit_vs_cnn.tuning.objective import TrainingObjective

    # Whoever started this process had it open.
    tuning = load_study(open_storage(storage_url(), waits=True), study_name)
    objective = TrainingObjective(tuning, prepared)
    work(tuning, objective, objective.remove_checkpoint)


if __name__ == "__main__":
    try:
        _main(sys.argv[1], Path(sys.argv[2]))
    except UserError as error:
        write_error_report(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
