"""Prefect's server that is away for a while in the middle of a run."""

import os
import signal
import time

import pytest

from harness.counts import asked
from harness.forked_commands import Forks
from harness.killed_project import KilledProject, RunningServer
from harness.small_project import wait_for

FAULTS = "VIT_VS_CNN_FAULTS"


@pytest.mark.skipif(FAULTS not in os.environ, reason=f"{FAULTS} is not set: minutes without a server")
@pytest.mark.parametrize("how", ["silent", "ended"])
def test_a_run_ends_though_the_server_is_away(
    small: KilledProject, server: RunningServer, flow_forks: Forks, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """VIT_VS_CNN_FAULTS=100 is the whole measure: two minutes."""
    away = asked(FAULTS, 20, 1.2)
    small.control("away", eda={"hold": True})
    command = flow_forks.start(small.root, "run", "--name", "away", "--set", "seeds=[1]")
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
