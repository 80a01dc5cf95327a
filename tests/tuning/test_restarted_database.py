"""PostgreSQL that is restarted in the middle of a search: workers wait for it, and every trial ends."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from harness.postgres import needs_postgres, restartable_server
from harness.sleeping_study import SPACE, sleeping_study
from harness.small_project import wait_for
from harness.tuning_workers import Workers
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import TransientError
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.stages import tune
from vit_vs_cnn.tuning.storage import open_storage, storage_url
from vit_vs_cnn.tuning.study import open_study
from vit_vs_cnn.tuning.summary import read_tuning_summary


@needs_postgres
def test_workers_wait_for_postgresql_while_it_is_restarted(tmp_path: Path) -> None:
    with restartable_server("optuna") as server:
        database = f"postgresql+psycopg2://tester@127.0.0.1:{server.port}/optuna"
        tuning = sleeping_study(database, 12)
        workers = Workers(tuning, database, 0.4, tmp_path)
        workers.add(2)
        wait_for(lambda: sum(trial.state.is_finished() for trial in tuning.trials()) >= 4)
        server.stop("fast")
        time.sleep(5)
        server.start()
        # One that was in the middle of a question has died: the search starts another.
        if died := [code for code in workers.wait() if code]:
            workers.add(len(died))
            assert workers.wait()[2:] == [0] * len(died)
        assert [trial.state.name for trial in tuning.trials()] == ["COMPLETE"] * 12
        assert all(sorted(trial.intermediate_values) == [1, 2, 3, 4] for trial in tuning.trials())


@needs_postgres
@pytest.mark.skipif("VIT_VS_CNN_FAULTS" not in os.environ, reason="VIT_VS_CNN_FAULTS is not set: half a minute")
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_search_goes_on_when_postgresql_is_restarted_in_the_middle(
    make_settings: Callable[..., Settings], prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    with restartable_server("optuna") as server:
        monkeypatch.setenv("OPTUNA_STORAGE", f"postgresql+psycopg2://tester@127.0.0.1:{server.port}/optuna")
        settings = make_settings({"tune": {"trials": 5, "epochs": 3, "space": SPACE, "pruner": {"name": "NopPruner"}}})
        tuning = open_study(open_storage(storage_url()), settings, "vit", prepared)

        def restart() -> None:
            wait_for(lambda: len(tuning.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) == 2)
            server.stop(mode)
            time.sleep(20)
            server.start()

        restarting = threading.Thread(target=restart)
        restarting.start()
        try:
            tune.run(settings, "vit")
        except TransientError:  # in the middle of a question: the flow starts the stage again
            restarting.join()
            tune.run(settings, "vit")
        restarting.join()
    summary = read_tuning_summary("vit")
    assert (summary.trials, summary.complete) == (5, 5)
