"""What docs/scaling.md says, on loopback: PostgreSQL, code from git, data by `dvc pull`, a folder as the machine."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from factories import REPOSITORY
from harness.postgres import database_server, needs_postgres
from harness.small_project import SmallProject, ask_json, wait_for
from vit_vs_cnn.orchestration.prefect_server import free_port

RECORD_A_RUN = """
import os, pathlib, subprocess
from vit_vs_cnn.config.load import read_settings
from vit_vs_cnn.tracking.run import start_run
with start_run(read_settings(pathlib.Path("params.yaml")), "compare") as run:
    run.log_metrics({"difference": 0.25})
    run.log_artifact(pathlib.Path("dvc.yaml"), "comparison")
"""


@pytest.fixture(scope="module")
def database() -> Iterator[int]:
    """The port of a PostgreSQL server with the databases `prefect` and `mlflow`."""
    with database_server("prefect", "mlflow") as port:
        yield port


@needs_postgres
def test_a_second_machine_runs_what_git_dvc_and_two_servers_on_postgresql_give_it(
    database: int, tmp_path: Path
) -> None:
    small = SmallProject(tmp_path)
    store = tmp_path / "store"
    for arguments in (["remote", "add", "--default", "store", str(store)], ["repro", "prepare"], ["push"]):
        environment = small.environment() | {"PREFECT__FLOW_RUN_ID": "the first machine"}
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=small.root, env=environment, check=True)
    shutil.copytree(REPOSITORY / "deploy", small.root / "deploy")
    small.git("add", "--all")
    small.git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "-m", "prepared")
    prefect, mlflow = free_port(), free_port()
    api, tracking = f"http://127.0.0.1:{prefect}/api", f"http://127.0.0.1:{mlflow}"
    url = f"postgresql+{{}}://tester@127.0.0.1:{database}/{{}}"
    shared = small.environment() | {
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_TRACKING_URI": tracking,
        "VIT_VS_CNN_GIT_URL": small.root.as_uri(),
        "VIT_VS_CNN_GIT_BRANCH": small.git("branch", "--show-current"),
    }
    machine = tmp_path / "machine"
    machine.mkdir()
    processes = []

    def start(*arguments: str, **more: str) -> None:
        log = (tmp_path / f"{arguments[0]}-{len(processes)}.log").open("wb")
        command = [sys.executable, "-m", *arguments]
        processes.append(subprocess.Popen(command, cwd=machine, env=shared | more, stdout=log, stderr=log))

    try:
        url_of_prefect = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url.format("asyncpg", "prefect")}
        start("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(prefect), **url_of_prefect)
        backend = [
            "--backend-store-uri",
            url.format("psycopg2", "mlflow"),
            "--artifacts-destination",
            str(tmp_path / "a"),
        ]
        start("mlflow", "server", *backend, "--host", "127.0.0.1", "--port", str(mlflow), "--workers", "1")
        wait_for(lambda: ask_json(f"{api}/health"))
        for arguments in (
            ["work-pool", "create", "remote", "--type", "process"],
            ["--no-prompt", "deploy", "--prefect-file", "deploy/remote.yaml", "--all"],
        ):
            subprocess.run([sys.executable, "-m", "prefect", *arguments], cwd=small.root, env=shared, check=True)
        start("prefect", "worker", "start", "--pool", "remote")
        deployment = ask_json(f"{api}/deployments/name/vit-vs-cnn/remote")
        body = {"parameters": {"name": "far"}, "state": {"type": "SCHEDULED"}}
        flow_run = ask_json(f"{api}/deployments/{deployment['id']}/create_flow_run", body)["id"]
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        wait_for(lambda: ask_json(f"{api}/flow_runs/{flow_run}")["state"]["type"] in final)
        assert ask_json(f"{api}/flow_runs/{flow_run}")["state"]["message"] == "4 stages ran, 1 were cached."
        assert "prepare" not in small.started("far")
        assert not (small.root / "runs" / "far").exists()

        wait_for(lambda: ask_json(f"{tracking}/health") is not None)
        subprocess.run([sys.executable, "-c", RECORD_A_RUN], cwd=small.root, env=shared, check=True)
        search = {"experiment_ids": ["1"], "max_results": 5}
        run = ask_json(f"{tracking}/api/2.0/mlflow/runs/search", search)["runs"][0]
        assert {metric["key"]: metric["value"] for metric in run["data"]["metrics"]} == {"difference": 0.25}
        assert list((tmp_path / "a").rglob("comparison/dvc.yaml"))
        assert not list((small.root / ".vit-vs-cnn/outbox").glob("*/header.json"))
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(300)
