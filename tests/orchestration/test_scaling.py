"""What docs/scaling.md says, on loopback: the services of deploy/compose.yaml, and a worker that is killed."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient
from PIL import Image

import vit_vs_cnn
from factories import REPOSITORY
from harness.compose import Stack, compose_services, stack_on_loopback
from harness.model_server import Server
from harness.object_store import BUCKET
from harness.postgres import needs_postgres
from harness.small_project import SmallProject, ask_json, wait_for

FULL = "VIT_VS_CNN_TEST_TEAM"

RECORD_A_RUN = """
import os, pathlib, subprocess
from vit_vs_cnn.config.load import read_settings
from vit_vs_cnn.tracking.run import start_run
with start_run(read_settings(pathlib.Path("params.yaml")), "compare") as run:
    run.log_metrics({"difference": 0.25})
    run.log_artifact(pathlib.Path("dvc.yaml"), "comparison")
"""


class Team:
    """A project whose workers, servers and data are elsewhere."""

    def __init__(self, project: "SmallProject | RealProject", stack: Stack) -> None:
        self.project, self.stack = project, stack

    def call(self, module: str, *arguments: str, **more: str) -> None:
        environment = self.stack.client(PREFECT__FLOW_RUN_ID="the first machine", **more)
        subprocess.run([sys.executable, "-m", module, *arguments], cwd=self.project.root, env=environment, check=True)

    def push_prepared_data(self) -> None:
        """Have DVC prepare the data, and push them to the bucket, which is its remote from now on."""
        self.stack.up("bucket")
        for arguments in (
            ["remote", "add", "--default", "store", f"s3://{BUCKET}/dvc"],
            ["repro", "prepare"],
            ["push"],
        ):
            self.call("dvc", *arguments)

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        variables = self.stack.client()
        url, key = f"{variables['PREFECT_API_URL']}/{path}", variables["PREFECT_API_AUTH_STRING"]
        return ask_json(url, body, method, key)

    def start_run(self, name: str, **parameters: Any) -> str:
        deployment = self.ask("deployments/name/vit-vs-cnn/remote")
        body = {"parameters": {"name": name, **parameters}, "state": {"type": "SCHEDULED"}}
        return str(self.ask(f"deployments/{deployment['id']}/create_flow_run", body)["id"])

    def shorten_silence(self, seconds: int) -> str:
        """Have runs crash after so many seconds without a heartbeat; returns the sentence that the deployment gave."""
        (automation,) = self.ask("automations/filter", {})
        assert automation["trigger"]["within"] == 300
        automation["trigger"]["within"] = seconds
        given = {key: automation[key] for key in ("name", "description", "enabled", "trigger", "actions")}
        self.ask(f"automations/{automation['id']}", given, "PUT")
        return str(automation["actions"][0]["message"])

    def has_heartbeat(self, flow_run: str) -> bool:
        resource = {"id": [f"prefect.flow-run.{flow_run}"]}
        events = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": resource}
        return bool(self.ask("events/filter", {"filter": events})["events"])

    def task_states(self, flow_run: str) -> set[str]:
        tasks = self.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})
        return {task["state"]["type"] for task in tasks}

    def state(self, flow_run: str) -> Any:
        return self.ask(f"flow_runs/{flow_run}")["state"]

    def end_of(self, flow_run: str, seconds: float = 600) -> Any:
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        return wait_for(lambda: (state := self.state(flow_run))["type"] in final and state, seconds)

    def kill_worker(self) -> None:
        """As a machine that loses its power: the worker and all that it started, at once."""
        worker = psutil.Process(self.stack.processes["worker"].pid)
        for process in [worker, *worker.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # what ended with the one before
                process.kill()


def test_only_pages_are_published_and_on_loopback_unless_told_otherwise() -> None:
    services = compose_services()
    published = {name: port for name, service in services.items() for port in service.get("ports", [])}
    assert published.keys() == {"mlflow", "prefect", "serve"}
    assert all(port.startswith("${BIND:-127.0.0.1}:") for port in published.values())
    for name, service in services.items():
        assert "restart" in service, name
        assert not any("password" in key.lower() and "FILE" not in key for key in service.get("environment", {})), name
        once = service["restart"].startswith(("no", "on-failure"))
        assert once or "healthcheck" in service, name


@needs_postgres
def test_a_team_s_services_run_a_pipeline_and_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    small = SmallProject(tmp_path)
    # The whole package, which is not the one that is installed here.
    shutil.copytree(REPOSITORY / "src", small.root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    variables = {
        "VIT_VS_CNN_GIT_URL": small.root.as_uri(),
        "VIT_VS_CNN_GIT_BRANCH": small.git("branch", "--show-current"),
        "MLFLOW_URL": "https://mlflow.example.com",
    }
    home = {"HOME": str(tmp_path / "home"), "PREFECT_HOME": str(tmp_path / "home/.prefect")}
    with stack_on_loopback(tmp_path, variables | {"PROJECT": str(small.root)}, small.environment() | home) as stack:
        team = Team(small, stack)
        team.push_prepared_data()
        small.git("add", "--all")
        small.git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "-m", "prepared")
        stack.up("worker")
        sentence = team.shorten_silence(90)

        pulling = _killed_while_it_pulls(team)

        small.control("far", compare={"seconds": 600})
        killed = team.start_run("far")
        wait_for(lambda: "compare" in small.started("far"))
        # What a stage could not deliver before the machine failed.
        unreachable = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "VIT_VS_CNN_STATE": str(tmp_path / "state-worker")}
        record = [sys.executable, "-c", RECORD_A_RUN]
        subprocess.run(record, cwd=small.root, env=stack.client(**unreachable), check=True)
        team.kill_worker()
        assert team.state(killed)["type"] == "RUNNING"

        small.control("far")
        stack.start("worker")
        state = team.end_of(team.start_run("far"))
        assert (state["type"], state["message"]) == ("COMPLETED", "1 stages ran, 4 were cached."), stack.log("worker")
        assert sorted(small.started("far")) == ["compare", "compare", "eda", "train-resnet", "train-vit"]
        assert not (small.root / "runs").exists()
        installed = str(Path(vit_vs_cnn.__file__).parent)
        assert not any(fact["code"].startswith(installed) for fact in small.history("far", "start"))

        tracking = stack.client()["MLFLOW_TRACKING_URI"]
        assert [_asked_by_a_page_of(name, tracking) for name in ("mlflow", "other")] == [200, 403]
        search = {"experiment_ids": ["1"], "max_results": 5}
        run = ask_json(f"{tracking}/api/2.0/mlflow/runs/search", search)["runs"][0]
        assert {metric["key"]: metric["value"] for metric in run["data"]["metrics"]} == {"difference": 0.25}
        stored = _objects(stack)
        assert any(name.endswith("comparison/dvc.yaml") for name in stored if name.startswith(f"{BUCKET}/mlflow/"))
        assert any(name.startswith(f"{BUCKET}/dvc/files/md5/") for name in stored)

        # All its stages are cached: nothing else would ask the store for anything.
        team.call("dvc", "remote", "modify", "store", "url", "s3://nothing-here/dvc")
        small.git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "-am", "moved")
        state = team.end_of(team.start_run("far"))
        assert state["type"] == "FAILED"
        assert state["message"].startswith("DVC's remote store: s3://nothing-here/dvc: no such bucket or object (")

        for flow_run in (pulling, killed):
            state = team.end_of(flow_run)
            assert (state["type"], state["message"]) == ("CRASHED", sentence)
        assert sentence.startswith(
            "No heartbeat for 300 s: its worker was killed, its machine failed or this server was"
        )
        team.end_of(team.start_run("far"))
        assert team.task_states(killed) == {"COMPLETED", "CRASHED"}


@needs_postgres
@pytest.mark.skipif(not os.environ.get(FULL), reason=f"{FULL} is not set: minutes of computing, on two cores")
def test_the_real_pipeline_goes_through_all_of_it_while_the_store_stops_for_a_minute(tmp_path: Path) -> None:
    project = RealProject(tmp_path)
    variables = {
        "VIT_VS_CNN_GIT_URL": project.root.as_uri(),
        "VIT_VS_CNN_GIT_BRANCH": project.git("branch", "--show-current"),
        "PROJECT": str(project.root),
        "REGISTRY": "debug",
    }
    with stack_on_loopback(tmp_path, variables, project.environment()) as stack:
        team = Team(project, stack)
        team.push_prepared_data()
        project.commit("prepared")
        stack.up("worker")
        flow_run = team.start_run("far", stages=["register"])
        search = {"experiment_ids": ["1"], "max_results": 5}
        runs = f"{stack.client()['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/runs/search"
        wait_for(lambda: ask_json(runs, search).get("runs"), 1200)
        stack.processes["store"].send_signal(signal.SIGSTOP)
        time.sleep(60)
        stack.processes["store"].send_signal(signal.SIGCONT)
        state = team.end_of(flow_run, 2400)
        assert state["type"] == "COMPLETED", f"{state['message']}\n{stack.log('worker')}"
        assert "prepare" not in state["message"]
        assert not list((tmp_path / "state-worker/outbox").glob("*/header.json"))
        stored = _objects(stack)
        assert any(name.endswith("/data/model.pt2") for name in stored if name.startswith(f"{BUCKET}/mlflow/"))

        elsewhere = tmp_path / "elsewhere"
        subprocess.run(["git", "clone", "--quiet", str(project.root), str(elsewhere)], check=True)
        pull = [sys.executable, "-m", "dvc", "pull", "prepare"]
        subprocess.run(pull, cwd=elsewhere, env=stack.client(), check=True)
        assert (elsewhere / "data/prepared/dataset.json").is_file()

        client = MlflowClient(stack.client()["MLFLOW_TRACKING_URI"])
        client.set_registered_model_alias("debug-classifier", "champion", "1")
        stack.up("serve")
        file = io.BytesIO()
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(file, "png")
        answer = Server(stack.processes["serve"], stack.ports[8000]).send("/predict", file.getvalue())
        assert answer.json()["model"] == {"name": "debug-classifier", "version": 1}
        _resumes_where_its_worker_was_killed(team)


class RealProject:
    """This repository as it is in the working tree, with the settings of the preset `debug` and one contestant."""

    def __init__(self, folder: Path) -> None:
        self.root, self._home = folder / "project", folder / "home"
        self._home.mkdir()
        listed = ["git", "-C", str(REPOSITORY), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]:
            if (REPOSITORY / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, self.root / name)
        self.git("init", "--quiet")
        self.commit("as it is")
        command = ["vit-vs-cnn", "params", "--preset", "debug", "--set", "models.resnet=null"]
        params = subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True, check=True
        )
        (self.root / "params.yaml").write_text(params.stdout)

    def environment(self) -> dict[str, str]:
        foreign = ("PREFECT_", "MLFLOW_", "VIT_VS_CNN_", "AWS_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        return kept | {"PATH": path, "HOME": str(self._home), "PREFECT_HOME": str(self._home / ".prefect")}

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", *arguments]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)


def _killed_while_it_pulls(team: Team) -> str:
    """A flow run whose worker was killed before its flow began; another worker has started since."""
    store = team.stack.processes["store"]
    store.send_signal(signal.SIGSTOP)
    flow_run = team.start_run("far")
    wait_for(lambda: team.has_heartbeat(flow_run))
    team.kill_worker()
    assert team.state(flow_run)["type"] == "PENDING"
    store.send_signal(signal.SIGCONT)
    team.stack.start("worker")
    return flow_run


def _resumes_where_its_worker_was_killed(team: Team) -> None:
    """Kill a worker in the middle of a training; the next one begins after the epochs that were finished."""
    wanted = {"stages": ["train"], "overrides": ["train.epochs=100"]}

    def epochs(begin: int = 0) -> list[int]:
        return [int(found) for found in re.findall(r"epoch +(\d+)/100 ", team.stack.log("worker")[begin:])]

    team.start_run("long", **wanted)
    wait_for(epochs, 1200)
    team.kill_worker()
    reported, end = epochs()[-1], len(team.stack.log("worker"))
    team.stack.start("worker")
    state = team.end_of(team.start_run("long", **wanted), 2400)
    assert state["type"] == "COMPLETED", f"{state['message']}\n{team.stack.log('worker')}"
    # Later ones than that may have been finished, and not been reported yet, before the kill.
    assert reported < epochs(end)[0] < 100
    assert epochs(end)[-1] == 100


def _asked_by_a_page_of(name: str, tracking: str) -> int:
    """The answer of MLflow's server to what a browser sends from a page at this name behind the proxy."""
    request = Request(
        f"{tracking}/ajax-api/2.0/mlflow/experiments/search",
        b'{"max_results": 1}',
        {"Content-Type": "application/json", "Origin": f"https://{name}.example.com"},
    )
    try:
        with urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def _objects(stack: Stack) -> list[str]:
    import s3fs

    variables = stack.client()
    keys = {"key": variables["AWS_ACCESS_KEY_ID"], "secret": variables["AWS_SECRET_ACCESS_KEY"]}
    store = s3fs.S3FileSystem(
        **keys, client_kwargs={"endpoint_url": variables["AWS_ENDPOINT_URL"]}, use_listings_cache=False
    )
    return list(map(str, store.find(BUCKET)))
