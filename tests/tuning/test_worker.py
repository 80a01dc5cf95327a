"""The exact budget of trials, whichever workers are killed, join or start late."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import Trial, TrialState

from harness import sleeping_study as sleeper
from harness.postgres import database_server, needs_postgres
from harness.sleeping_study import sleeping, sleeping_study
from harness.tuning_workers import Workers
from vit_vs_cnn.tuning.study import TuningStudy
from vit_vs_cnn.tuning.worker import work

Kill = Callable[[pytest.MonkeyPatch], None]


class Killed(BaseException):
    """What SIGKILL is to the code above it: Optuna does not catch it, so nothing of the trial's end is stored."""


# Optuna's own code fails where storing an end does.
KILLED = (Killed, UnboundLocalError)


def states(tuning: TuningStudy) -> list[str]:
    return [trial.state.name for trial in tuning.trials()]


def attempts(tuning: TuningStudy) -> int:
    return len(tuning.study.get_trials(deepcopy=False))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def test_a_worker_ends_with_exactly_the_budget_and_the_recipe_is_trial_0(url: str) -> None:
    tuning = sleeping_study(url, 12)
    work(tuning, sleeping(tuning))
    assert tuning.is_finished()
    assert [trial.number for trial in tuning.trials()] == list(range(12))
    recipe = tuning.trials()[0]
    assert recipe.params == {"optimizer.lr": 0.002, "optimizer.weight_decay": 0.05}
    assert recipe.state == TrialState.COMPLETE


def test_the_pruner_stops_trials_and_saves_epochs(url: str) -> None:
    tuning = sleeping_study(url, 14)
    work(tuning, sleeping(tuning))
    pruned = [trial for trial in tuning.trials() if trial.state == TrialState.PRUNED]
    assert pruned
    assert all(len(trial.intermediate_values) < sleeper.EPOCHS for trial in pruned)
    without = sleeping_study(url, 6, pruner={"name": "NopPruner"})
    work(without, sleeping(without))
    assert set(states(without)) == {"COMPLETE"}


def test_seconds_end_a_search_before_its_trials(url: str) -> None:
    tuning = sleeping_study(url, 50, seconds=0.5, pruner={"name": "NopPruner"})
    work(tuning, sleeping(tuning, 0.1))
    assert tuning.is_finished()
    assert len(tuning.trials()) == 5


def test_a_trial_that_breaks_fails_with_its_reason_and_the_others_run(url: str) -> None:
    tuning = sleeping_study(url, 4)

    def breaks(trial: Trial) -> float:
        if trial.number == 2:
            raise ZeroDivisionError("nothing to divide by")
        return 0.5

    work(tuning, breaks)
    assert states(tuning) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert tuning.trials()[2].user_attrs["reason"] == "ZeroDivisionError: nothing to divide by"


def kill_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, *, calls: int, after: bool = False) -> None:
    """Have the call with the number `calls` of a function be the end of the process, before or after its effect."""
    original, count = getattr(owner, name), 0

    def dies(*arguments: object, **options: object) -> object:
        nonlocal count
        count += 1
        if count == calls and not after:
            raise Killed
        answer = original(*arguments, **options)
        if count == calls:
            raise Killed
        return answer

    monkeypatch.setattr(owner, name, dies)


MOMENTS: dict[str, Kill] = {
    "before the recipe is drawn": lambda patch: kill_once(patch, Trial, "suggest_float", calls=1),
    "while the recipe is drawn": lambda patch: kill_once(patch, Trial, "suggest_float", calls=2),
    "while a new trial is drawn": lambda patch: kill_once(patch, Trial, "suggest_float", calls=6),
    "before its first epoch": lambda patch: kill_once(patch, Trial, "report", calls=5),
    "after an epoch": lambda patch: kill_once(patch, Trial, "report", calls=6, after=True),
    "after the last epoch of the recipe": lambda patch: kill_once(patch, Trial, "report", calls=4, after=True),
    "before its end is stored": lambda patch: kill_once(patch, RDBStorage, "set_trial_state_values", calls=4),
    "after its end is stored": lambda patch: kill_once(
        patch, RDBStorage, "set_trial_state_values", calls=4, after=True
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_a_search_ends_with_exactly_the_budget(
    url: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = sleeping_study(url, 5, pruner={"name": "NopPruner"})
    MOMENTS[moment](monkeypatch)
    with pytest.raises(KILLED):
        work(tuning, sleeping(tuning))
    assert not tuning.is_finished()
    tuning.release_trial(os.getpid())  # as the parent does
    # Killed once more, just when the trial is about to be repeated: the repetition must not get lost.
    kill_once(monkeypatch, Study, "add_trial", calls=1)
    for _ in range(2):
        try:
            work(tuning, sleeping(tuning))
        except KILLED:
            continue
    assert tuning.is_finished()
    assert states(tuning) == ["COMPLETE"] * 5
    assert all(list(trial.intermediate_values) == [1, 2, 3, 4] for trial in tuning.trials())
    recipe = tuning.trials()[0]
    assert recipe.number == 0
    assert recipe.params == {"optimizer.lr": 0.002, "optimizer.weight_decay": 0.05}


def test_a_trial_that_is_repeated_keeps_number_values_and_epochs(url: str) -> None:
    tuning = sleeping_study(url, 3, pruner={"name": "NopPruner"})
    epochs = 0

    def killed_once(trial: Trial) -> float:
        nonlocal epochs
        earlier = tuning.storage.get_trial(trial._trial_id)
        for epoch in range(len(earlier.intermediate_values) + 1, 5):
            epochs += 1
            trial.report(epoch / 4, epoch)
            if epochs == 6:
                raise Killed
        return 1.0

    with pytest.raises(Killed):
        work(tuning, killed_once)
    killed = tuning.trials()[1]
    tuning.release_trial(os.getpid())
    work(tuning, killed_once)
    repeated = tuning.trials()[1]
    assert (repeated.number, repeated.params, repeated.state) == (1, killed.params, TrialState.COMPLETE)
    assert epochs == 3 * 4
    snapshot = tuning.snapshot().trials
    assert [trial.number for trial in snapshot] == [0, 1, 2, 3]
    assert [trial.state.name for trial in snapshot] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]


def test_a_trial_that_kills_its_process_again_and_again_fails_with_a_sentence(url: str) -> None:
    tuning = sleeping_study(url, 2, pruner={"name": "NopPruner"})

    def kills(trial: Trial) -> float:
        if trial.params["optimizer.lr"] == 0.002:
            raise Killed
        return 0.5

    for _ in range(3):
        with pytest.raises(Killed):
            work(tuning, kills)
        tuning.release_trial(os.getpid())
    work(tuning, kills)
    assert states(tuning) == ["FAIL", "COMPLETE"]
    assert "its process was killed 3 times in the same epoch" in tuning.trials()[0].user_attrs["reason"]


def test_a_trial_that_advances_between_its_kills_does_not_fail(url: str) -> None:
    tuning = sleeping_study(url, 1, epochs=12)

    def advances(trial: Trial) -> float:
        epochs = len(tuning.storage.get_trial(trial._trial_id).intermediate_values)
        if epochs == 12:
            return 1.0
        trial.report(0.5, epochs + 1)
        raise Killed

    for _ in range(12):
        with pytest.raises(Killed):
            work(tuning, advances)
        tuning.release_trial(os.getpid())
    work(tuning, advances)
    assert states(tuning) == ["COMPLETE"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError("the disk is full")])
def test_an_interruption_is_not_the_fault_of_the_trial(url: str, interruption: BaseException) -> None:
    tuning = sleeping_study(url, 1)

    def interrupted(_: Trial) -> float:
        raise interruption

    for _ in range(5):
        with pytest.raises((KeyboardInterrupt, OSError)):
            work(tuning, interrupted)
        assert not tuning.is_finished()
    work(tuning, sleeping(tuning))
    assert states(tuning) == ["COMPLETE"]


def test_what_a_worker_says_of_a_trial_that_was_taken_from_it_does_not_count(url: str) -> None:
    tuning = sleeping_study(url, 1)

    def taken(trial: Trial) -> float:
        tuning.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # no heartbeat for too long
        return 0.1

    with pytest.raises((ValueError, AssertionError)):  # its process ends, and is restarted
        work(tuning, taken)
    work(tuning, lambda _: 0.9)
    assert [trial.value for trial in tuning.trials()] == [0.9]


def kill_a_worker(tuning: TuningStudy, finished: int, killed: int | None = None) -> int:
    """Kill a worker in a trial once so many trials are finished, but not the process `killed`; return its id."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        trials = tuning.trials()
        running = [
            trial
            for trial in trials
            # Not in its last epoch, after which the worker might be killed between two trials.
            if trial.state == TrialState.RUNNING and 0 < len(trial.intermediate_values) < sleeper.EPOCHS - 1
        ]
        # A repeated trial has its earlier epochs before a worker has it.
        workers = {trial.user_attrs["worker"] for trial in running if "worker" in trial.user_attrs}
        pids = {int(worker.rpartition(":")[2]) for worker in workers} - {killed}
        if pids and sum(trial.state.is_finished() for trial in trials) >= finished:
            pid = pids.pop()
            os.kill(pid, signal.SIGKILL)
            return pid
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def test_two_processes_share_a_study_on_sqlite_without_an_error(url: str, tmp_path: Path) -> None:
    trials = int(os.environ.get("TUNING_TRIALS", "30"))
    tuning = sleeping_study(url, trials)
    workers = Workers(tuning, url, 0.02, tmp_path, together=2)
    workers.add(2)
    assert workers.wait() == [0, 0]
    assert states(tuning) == ["COMPLETE"] * trials
    assert attempts(tuning) == trials
    assert len({trial.user_attrs["worker"] for trial in tuning.trials()}) == 2
    # Workers do not draw the same values, however they started.
    assert len({trial.params["optimizer.lr"] for trial in tuning.trials()}) == trials


def test_a_killed_process_is_noticed_by_its_missing_heartbeat_and_one_that_is_late_joins(
    url: str, tmp_path: Path
) -> None:
    tuning = sleeping_study(url, 8)
    workers = Workers(tuning, url, 0.6, tmp_path)
    workers.add(2)
    kill_a_worker(tuning, 3)
    workers.add(1)
    assert sorted(workers.wait()) == [-signal.SIGKILL, 0, 0]
    assert states(tuning) == ["COMPLETE"] * 8
    assert attempts(tuning) == 9
    assert all(sorted(trial.intermediate_values) == [1, 2, 3, 4] for trial in tuning.trials())


def test_a_trial_with_a_heartbeat_is_left_to_its_worker(url: str, tmp_path: Path) -> None:
    tuning = sleeping_study(url, 1)
    workers = Workers(tuning, url, 2.0 * sleeper.GRACE_SECONDS, tmp_path)
    workers.add(2)
    assert workers.wait() == [0, 0]
    assert attempts(tuning) == 1


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with database_server("optuna") as port:
        yield f"postgresql+psycopg2://tester@127.0.0.1:{port}/optuna"


@needs_postgres
def test_four_processes_on_postgresql_two_killed_halfway_end_with_exactly_the_budget(
    database: str, tmp_path: Path
) -> None:
    tuning = sleeping_study(database, 16)
    workers = Workers(tuning, database, 0.4, tmp_path)
    workers.add(4)
    kill_a_worker(tuning, 7, kill_a_worker(tuning, 4))
    assert sorted(workers.wait()) == [-signal.SIGKILL, -signal.SIGKILL, 0, 0]
    assert states(tuning) == ["COMPLETE"] * 16
    assert all(sorted(trial.intermediate_values) == [1, 2, 3, 4] for trial in tuning.trials())
