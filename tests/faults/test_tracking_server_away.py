"""MLflow's server that is away for a while in the middle of a run: the run ends, and everything is delivered."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from harness.counts import asked
from harness.forked_commands import Forks
from harness.killed_project import STAGES, KilledProject
from harness.small_project import ask_json, wait_for
from vit_vs_cnn.core.process import stop_tree
from vit_vs_cnn.orchestration.prefect_server import free_port
from vit_vs_cnn.tracking.outbox import outbox_dir

FAULTS = "VIT_VS_CNN_FAULTS"
STEPS = 40
_RECORDS = f"""
from vit_vs_cnn.config.load import read_settings
from vit_vs_cnn.tracking.run import start_run
with start_run(read_settings(pathlib.Path("params.yaml")), name) as tracked:
    for step in range({STEPS}):
        tracked.log_metrics({{"x": step}}, step=step)
        while step == {STEPS // 2} and told().get("pause"):
            time.sleep(0.05)
    tracked.log_artifact(out / "part-0")
note("end")
"""


class TrackedProject(KilledProject):
    """Its stages record what real ones do."""

    stage = KilledProject.stage.removesuffix('note("end")\n') + _RECORDS


class TrackingServer:
    """MLflow's server on a database and a folder."""

    def __init__(self, database: Path) -> None:
        self._database, self._port = database, free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        stores = ("--backend-store-uri", f"sqlite:///{self._database}", "--artifacts-destination", "files")
        listen = ("--host", "127.0.0.1", "--port", str(self._port), "--workers", "1")
        with (self._database.parent / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *stores, *listen],
                cwd=self._database.parent,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(lambda: ask_json(f"{self.url}/health"))

    def stop(self) -> None:
        stop_tree(self._process)

    def runs(self) -> dict[str, Run]:
        """All its runs by their names, from the database itself."""
        found = self._client.search_runs([one.experiment_id for one in self._client.search_experiments()])
        return {run.info.run_name: run for run in found}

    def steps(self, run: Run) -> list[int]:
        return [metric.step for metric in self._client.get_metric_history(run.info.run_id, "x")]

    def files(self, run: Run) -> list[str]:
        return [file.path for file in MlflowClient(self.url).list_artifacts(run.info.run_id)]

    @property
    def _client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self._database}")


@pytest.fixture
def small(tmp_path: Path) -> TrackedProject:
    return TrackedProject(tmp_path)


@pytest.fixture
def tracking(tmp_path: Path, empty_store: Path) -> Iterator[TrackingServer]:
    (tmp_path / "tracking").mkdir()
    database = tmp_path / "tracking" / "mlflow.db"
    database.write_bytes(empty_store.read_bytes())
    server = TrackingServer(database)
    yield server
    server.stop()


@pytest.mark.skipif(FAULTS not in os.environ, reason=f"{FAULTS} is not set: minutes without a server")
@pytest.mark.parametrize("back", ["in the middle", "after the end"])
def test_a_run_loses_nothing_while_the_server_is_away(
    small: TrackedProject, tracking: TrackingServer, flow_forks: Forks, back: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """VIT_VS_CNN_FAULTS=100 is the whole measure: two minutes."""
    away, environment = asked(FAULTS, 20, 1.2), {"MLFLOW_TRACKING_URI": tracking.url}
    small.control("away", eda={"pause": True})
    command = flow_forks.start(small.root, "run", "--name", "away", "--set", "seeds=[1]", environment=environment)
    wait_for(lambda: (run := tracking.runs().get("eda")) and len(tracking.steps(run)) > STEPS // 4)
    tracking.stop()
    small.control("away", compare={"pause": back == "in the middle"})
    wait_for(lambda: "compare" in small.started("away"))
    time.sleep(away)
    if back == "in the middle":
        tracking.start()
        small.control("away")
    assert command.wait() == 0, command.output
    if back == "after the end":
        assert "nothing is lost, `vit-vs-cnn sync` delivers it later." in command.output
        tracking.start()
        flow_forks.call(small.root, "sync", environment=environment)
    assert small.is_whole("away")
    runs = tracking.runs()
    assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(STAGES, "FINISHED")
    for run in runs.values():
        assert sorted(tracking.steps(run)) == list(range(STEPS))
        assert tracking.files(run) == ["lineage", "part-0"]
    assert not list(outbox_dir().glob("*/header.json"))
    with capsys.disabled():
        print(f"\nMLflow's server was away for {away} s: {len(runs)} runs delivered, {STEPS * len(runs)} metrics")
