"""`vit-vs-cnn up`, its servers and its worker, each killed in the middle of a run: they come back, and it ends."""

import os
from pathlib import Path
from random import Random

import psutil
import pytest

from harness.counts import asked, seeded
from harness.killed_project import KilledProject
from harness.kills import KILLS
from harness.local_services import Server
from harness.small_project import wait_for

# By a part of their command lines.
SERVICES = {
    "prefect": "vit_vs_cnn.orchestration.prefect_server:create_app",
    "mlflow": "mlflow.server.fastapi_app:app",
    "worker": "--pool",
}
# A run whose own process dies with what is killed is started again.
FATAL = ("worker", "up")


@pytest.mark.skipif(KILLS not in os.environ, reason=f"{KILLS} is not set: minutes of servers that start")
def test_services_that_are_killed_in_the_middle_of_a_run_come_back_and_it_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """VIT_VS_CNN_KILLS=200 is the whole measure; every service dies as often as the others."""
    small, random = KilledProject(tmp_path), seeded()
    server, rounds = Server(small), asked(KILLS, 1, 0.02)
    try:
        for number in range(rounds):
            for name in random.sample([*SERVICES, "up"], len(SERVICES) + 1):
                _kill_in_a_run(server, name, f"{name}-{number}", random)
        alive = {"state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED", "CANCELLING"]}}}
        wait_for(lambda: server.ask("flow_runs/filter", {"flow_runs": alive}) == [], 60)
        wait_for(lambda: server.ask("task_runs/filter", {"task_runs": alive}) == [], 60)
    finally:
        server.stop()
    assert small.processes() == []
    with capsys.disabled():
        print(f"\n{rounds * (len(SERVICES) + 1)} kills: {rounds} each of {', '.join([*SERVICES, 'up'])}")


def _kill_in_a_run(server: Server, service: str, run: str, random: Random) -> None:
    small, stage = server.small, random.choice(["prepare", "eda", "train_vit", "compare"])
    small.control(run, **{stage: {"hold": True}})
    parameters = {"name": run, "overrides": [f"seeds=[{random.randrange(10**6)}]"]}
    flow_run = server.submit(**parameters)
    wait_for(lambda: stage.replace("_", "-") in small.started(run))
    for process in [server.process] if service == "up" else _service(server, service):
        process.kill()
    small.control(run)  # it goes on while the server is away
    if service == "up":
        server.process.wait()
        wait_for(lambda: small.processes() == [])
        server.start()
    else:
        wait_for(lambda: f"{service} died; starting it again" in server.log.read_text())
        wait_for(lambda: server.ask("health"))
    state = server.end(flow_run)
    if service in FATAL:
        assert state["type"] == "CRASHED"
        state = server.run(**parameters)
    assert state["type"] == "COMPLETED", state["message"]
    assert small.is_whole(run)


def _service(server: Server, name: str) -> list[psutil.Process]:
    """The processes of a service: the worker's flow runs are its own."""
    found = [process for process in server.process_tree() if SERVICES[name] in process.cmdline()]
    return [*found[0].children(recursive=True), found[0]]
