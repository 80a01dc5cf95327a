"""A worker of a study: takes trials and works on them until the budget is used up.

`python -m vit_vs_cnn.tuning.worker STUDY PREPARED` is one as a process; tune.workers says how many there are.
"""

import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from optuna.trial import Trial, TrialState

from vit_vs_cnn.core.errors import ErrorReport, TransientError, UserError, write_error_report
from vit_vs_cnn.tuning.address import storage_address
from vit_vs_cnn.tuning.claims import Claims, Ended

Objective = Callable[[Trial], Ended]


def work(claims: Claims, objective: Objective) -> None:
    """Work on trial after trial; what goes wrong in one ends that one, with its reason, and nothing else.

    A machine that fails, with a full disk for example, is no trial's fault: the trial is given back, the worker ends.
    """
    while (trial := claims.next()) is not None:
        try:
            with claims.alive(trial):
                ended = objective(trial)
        except (OSError, KeyboardInterrupt):
            claims.give_back(trial)
            raise
        except Exception as error:
            traceback.print_exc()
            ended = Ended(TrialState.FAIL, facts={"reason": f"{type(error).__name__}: {error}"})
        claims.end(trial, ended)


def _main(study_name: str, prepared: Path) -> None:
    from vit_vs_cnn.tuning.objective import TrainingObjective
    from vit_vs_cnn.tuning.storage import StudyStorage
    from vit_vs_cnn.tuning.study import load_study

    tuning = load_study(StudyStorage(storage_address()), study_name)
    work(Claims(tuning), TrainingObjective(tuning, prepared))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _main(sys.argv[1], Path(sys.argv[2]))
    except UserError as error:
        write_error_report(ErrorReport(str(error), retryable=isinstance(error, TransientError)))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
