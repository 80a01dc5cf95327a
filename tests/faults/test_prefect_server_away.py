"""Prefect's server that is away for a while in the middle of a run."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.counts import asked
from harness.forked_commands import Forks
from harness.killed_project import KilledProject, RunningServer, forks_for, served
from harness.small_project import wait_for

FAULTS = "VIT_VS_CNN_FAULTS"


@pytest.fixture
def small(tmp_path: Path) -> KilledProject:
    return KilledProject(tmp_path)


@pytest.fixture
def server(small: KilledProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    with served(small, monkeypatch) as server:
        yield server


@pytest.fixture
def forks(small: KilledProject, server: RunningServer, tmp_path: Path) -> Iterator[Forks]:
    scratch = tmp_path / "forks"
    scratch.mkdir()
    with forks_for(small, server, scratch) as forks:
        yield forks


@pytest.mark.skipif(FAULTS not in os.environ, reason=f"{FAULTS} is not set: minutes without a server")
@pytest.mark.parametrize("how", ["silent", "ended"])
def test_a_run_ends_though_the_server_is_away(
    small: KilledProject, server: RunningServer, forks: Forks, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """VIT_VS_CNN_FAULTS=100 is the whole measure: two minutes."""
    away = asked(FAULTS, 20, 1.2)
    small.control("away", eda={"hold": True})
    command = forks.start(small.root, "run", "--name", "away", "--set", "seeds=[1]")
    wait_for(lambda: "eda" in small.started("away"))
    if how == "silent":
        server.signal(signal.SIGSTOP)
    else:
        server.stop()
    small.control("away")
    time.sleep(away)
    if how == "silent":
        server.signal(signal.SIGCONT)
    else:
        server.start_again()
    assert command.wait() == 0, command.output
    assert small.is_whole("away")
    wait_for(lambda: server.unfinished() == [])
    with capsys.disabled():
        print(f"\nPrefect's server was {how} for {away} s")
