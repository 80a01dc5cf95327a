"""The budget is a total, whoever comes, goes or is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import Trial, TrialState

from harness import sleeping_study
from harness.postgres import database_server, needs_postgres
from harness.sleeping_study import made_up, sleeping
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.tuning.claims import Claims, Ended, deaths_of, note_death
from vit_vs_cnn.tuning.storage import StudyStorage
from vit_vs_cnn.tuning.study import TuningStudy, find_study, load_study
from vit_vs_cnn.tuning.worker import work


class Killed(KeyboardInterrupt):
    """What a SIGKILL is to the code above it: nothing of it runs any more."""


def states(tuning: TuningStudy) -> list[str]:
    return [trial.state.name for trial in tuning.trials()]


def story(tuning: TuningStudy) -> list[Any]:
    return [(each.number, each.params, each.state, each.value, each.intermediate_values) for each in tuning.trials()]


def disown(tuning: TuningStudy, trial: Trial) -> None:
    """Make the trial one of a process of this machine that is gone."""
    owner = {**trial.user_attrs["worker"], "start": 1.0}
    tuning.storage.optuna.set_trial_user_attr(trial._trial_id, "worker", owner)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def test_a_worker_ends_with_exactly_the_budget_and_the_recipe_is_trial_0(address: str) -> None:
    tuning = made_up(address, 12)
    work(Claims(tuning), sleeping(tuning, 0.0))
    assert tuning.is_finished()
    assert len(tuning.trials()) == 12
    recipe = tuning.trials()[0]
    assert recipe.params == {"optimizer.lr": 0.002, "optimizer.weight_decay": 0.05}
    assert recipe.state == TrialState.COMPLETE


def test_the_pruner_fires_and_saves_epochs(address: str) -> None:
    tuning = made_up(address, 14)
    work(Claims(tuning), sleeping(tuning, 0.0))
    pruned = [trial for trial in tuning.trials() if trial.state == TrialState.PRUNED]
    assert pruned
    assert all(trial.user_attrs["epochs"] < sleeping_study.EPOCHS for trial in pruned)
    without = made_up(address, 14, pruner={"name": "NopPruner"})
    work(Claims(without), sleeping(without, 0.0))
    assert set(states(without)) == {"COMPLETE"}


def test_the_same_question_goes_on_with_its_study_and_another_one_does_not(address: str) -> None:
    first = made_up(address, 3)
    work(Claims(first), sleeping(first, 0.0))
    more = made_up(address, 5)
    assert more.name == first.name
    work(Claims(more), sleeping(more, 0.0))
    assert len(more.trials()) == 5
    names = {made_up(address, 3, **other).name for other in ({"epochs": 5}, {"data_fraction": 0.5}, {"workers": 2})}
    assert first.name in names  # how many work on it changes no answer
    assert len(names) == 3


def test_seconds_end_a_search_before_its_trials(address: str) -> None:
    tuning = made_up(address, 50, seconds=0.5, pruner={"name": "NopPruner"})
    work(Claims(tuning), sleeping(tuning, 0.1))
    assert tuning.is_finished()
    assert len(tuning.trials()) == 5


def test_a_trial_that_breaks_fails_with_its_reason_and_the_others_go_on(address: str) -> None:
    tuning = made_up(address, 4)

    def breaks(trial: Trial) -> Ended:
        if trial.number == 2:
            raise ZeroDivisionError("nothing to divide by")
        return Ended(TrialState.COMPLETE, 0.5)

    work(Claims(tuning), breaks)
    assert states(tuning) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert tuning.trials()[2].user_attrs["reason"] == "ZeroDivisionError: nothing to divide by"


def test_killed_again_and_again_a_worker_ends_where_an_undisturbed_one_does(address: str, tmp_path: Path) -> None:
    undisturbed = made_up(f"sqlite:///{tmp_path / 'other.db'}", 15)
    work(Claims(undisturbed), sleeping(undisturbed, 0.0))
    tuning = made_up(address, 15)
    for kill_at in range(1, 60):
        claims = Claims(tuning)
        calls = 0
        taken: list[Trial] = []

        def maybe_killed(trial: Trial, kill_at: int = kill_at, taken: list[Trial] = taken) -> Ended:
            nonlocal calls
            taken.append(trial)
            calls += 1
            if calls == 1 + kill_at % 3:
                raise Killed
            return sleeping(tuning, 0.0)(trial)

        # A killed process gives nothing back.
        claims.give_back = lambda trial: disown(tuning, trial)  # type: ignore[method-assign]
        try:
            work(claims, maybe_killed)
        except Killed:
            continue
        break
    assert tuning.is_finished()
    assert story(tuning) == story(undisturbed)


def test_one_killed_while_it_draws_draws_the_same_again(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = made_up(f"sqlite:///{tmp_path / 'other.db'}", 6)
    work(Claims(undisturbed), sleeping(undisturbed, 0.0))
    again = made_up(address, 6)
    original = Claims._take

    def dies(claims: Claims, trial: Trial) -> Trial:
        if trial.number in (0, 3) and len(trial.params) == 0:
            trial.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True)
            raise Killed
        return original(claims, trial)

    monkeypatch.setattr(Claims, "_take", dies)
    for _ in range(5):
        try:
            work(Claims(again), sleeping(again, 0.0))
        except Killed:
            continue
        break
    assert story(again) == story(undisturbed)


def test_a_trial_of_another_machine_is_taken_over_when_nothing_is_heard_of_it(address: str) -> None:
    tuning = made_up(address, 1)
    away = Claims(tuning)
    away._me = {**away._me, "host": "elsewhere"}
    first = away.next()
    assert first is not None
    here = Claims(tuning, grace_seconds=0.6)
    started = time.monotonic()
    with away.alive(first):
        pass  # it lives no longer than this
    second = here.next()
    assert second is not None
    assert second.number == first.number == 0
    assert time.monotonic() - started >= 0.6
    # The other one was only slow: what it says now is dropped, the trial is not its own any more.
    away.end(first, Ended(TrialState.COMPLETE, 0.1))
    assert states(tuning) == ["RUNNING"]
    here.end(second, Ended(TrialState.COMPLETE, 0.9))
    assert tuning.trials()[0].value == 0.9


def test_a_beat_keeps_a_trial(address: str) -> None:
    tuning = made_up(address, 1)
    away = Claims(tuning, seconds_between_beats=0.1)
    away._me = {**away._me, "host": "elsewhere"}
    trial = away.next()
    assert trial is not None
    here = Claims(tuning, grace_seconds=0.5)
    with away.alive(trial):
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert not here._is_abandoned(tuning.trials()[0])
            time.sleep(0.05)


def test_deaths_count_only_while_a_trial_comes_no_further(address: str) -> None:
    tuning = made_up(address, 1)
    trial = Claims(tuning).next()
    assert trial is not None
    for _ in range(2):
        note_death(tuning.storage, tuning.trials()[0])
    assert deaths_of(tuning.trials()[0]) == 2
    trial.report(0.5, 1)
    note_death(tuning.storage, tuning.trials()[0])
    assert deaths_of(tuning.trials()[0]) == 1


def test_a_journal_file_serves_as_well(tmp_path: Path) -> None:
    tuning = made_up(str(tmp_path / "shared" / "studies.log"), 6)
    work(Claims(tuning), sleeping(tuning, 0.0))
    assert find_or_sentence(tuning.storage).startswith("vit: no study to join in")
    assert len(load_study(StudyStorage(str(tmp_path / "shared" / "studies.log")), tuning.name).trials()) == 6


def find_or_sentence(storage: StudyStorage) -> str:
    try:
        return find_study(storage, "vit").name
    except UserError as error:
        return str(error)


def test_the_study_that_is_going_on_is_found(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(address, 2)
    tuning = made_up(address, 2, data_fraction=0.5)
    assert find_or_sentence(tuning.storage) == tuning.name
    monkeypatch.setattr("vit_vs_cnn.tuning.study._code", lambda: "another")
    assert "were begun by another version of the code" in find_or_sentence(tuning.storage)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("mysql://root@127.0.0.1/x", "OPTUNA_STORAGE: mysql is not supported"),
        (
            "postgresql://nobody:secret@127.0.0.1:9/x",
            r"OPTUNA_STORAGE: postgresql://nobody:\*\*\*@127.0.0.1:9/x cannot",
        ),
        ("sqlite:////proc/nothing/x.db", "OPTUNA_STORAGE: sqlite:////proc/nothing/x.db cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_sentence_without_its_password(address: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        StudyStorage(address)


class Workers:
    """Worker processes of a made-up study."""

    def __init__(self, tuning: TuningStudy, address: str, seconds: float, folder: Path) -> None:
        command = [sys.executable, sleeping_study.__file__, address, tuning.name, str(seconds)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._start = lambda: subprocess.Popen(command, cwd=folder, env=environment)
        self.processes: list[subprocess.Popen[bytes]] = []

    def add(self, count: int) -> None:
        self.processes += [self._start() for _ in range(count)]

    def wait(self) -> list[int]:
        return [process.wait(120) for process in self.processes]


def test_two_processes_share_a_study_on_sqlite_without_an_error(address: str, tmp_path: Path) -> None:
    trials = int(os.environ.get("TUNING_TRIALS", "40"))
    tuning = made_up(address, trials)
    workers = Workers(tuning, address, 0.02, tmp_path)
    workers.add(2)
    assert workers.wait() == [0, 0]
    assert states(tuning) == ["COMPLETE"] * trials
    assert len({trial.user_attrs["worker"]["pid"] for trial in tuning.trials()}) == 2


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with database_server("optuna") as port:
        yield f"postgresql+psycopg2://tester@127.0.0.1:{port}/optuna"


@needs_postgres
def test_four_processes_on_postgresql_two_killed_halfway_end_with_exactly_the_budget(
    database: str, tmp_path: Path
) -> None:
    tuning = made_up(database, 16)
    workers = Workers(tuning, database, 0.4, tmp_path)
    workers.add(4)
    deadline = time.monotonic() + 60
    while len([each for each in tuning.trials() if each.state.is_finished()]) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in workers.processes[:2]:
        process.send_signal(signal.SIGKILL)
    assert workers.wait() == [-signal.SIGKILL, -signal.SIGKILL, 0, 0]
    assert states(tuning) == ["COMPLETE"] * 16
    assert all(sorted(trial.intermediate_values) == [1, 2, 3, 4] for trial in tuning.trials())
