"""What a page of another site, and a program without the key, can do to `vit-vs-cnn up`: nothing."""

import json
import signal
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.local_services import Server
from harness.small_project import SmallProject


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(SmallProject(tmp_path_factory.mktemp("attacked")))
    yield server
    server.stop(signal.SIGTERM)
    assert server.small.processes() == []


def status(url: str, headers: dict[str, str], body: Any = None) -> int:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


foreign = pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
    ],
)


@foreign
def test_other_sites_pages_are_refused_by_every_server(server: Server, headers: dict[str, str]) -> None:
    prefect, mlflow, _ = (f"http://127.0.0.1:{port}" for port in server.ports)
    search = {"experiment_ids": ["0"], "max_results": 1}
    assert status(f"{prefect}/api/flows/filter", headers, {}) == 403
    assert status(f"{prefect}/api/health", headers) == 403
    assert status(f"{mlflow}/api/2.0/mlflow/runs/search", headers, search) == 403
    assert status(f"{prefect}/api/flows/filter", {"Origin": "http://127.0.0.1:1"}, {}) == 403
    assert status(f"{prefect}/api/flows/filter", {"Origin": prefect}, {}) == 401


@foreign
def test_other_sites_pages_are_refused_by_optunas_dashboard(server: Server, headers: dict[str, str]) -> None:
    pytest.importorskip("optuna_dashboard")
    dashboard = f"http://127.0.0.1:{server.optuna_port}"
    assert status(f"{dashboard}/api/studies", headers) == 403
    study = {"study_name": "evil", "directions": ["minimize"]}
    assert status(f"{dashboard}/api/studies", headers, study) == 403
    assert status(f"{dashboard}/api/studies", {"Origin": dashboard}) == 200


def test_the_api_asks_for_the_key_which_only_its_owner_can_read(server: Server) -> None:
    file = server.small.root / ".vit-vs-cnn/prefect/api-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    url = f"http://127.0.0.1:{server.ports[0]}/api/flows/filter"
    assert status(url, {}, {}) == 401
    assert status(url, {"authorization": "Basic dml0LXZzLWNubjo="}, {}) == 401
    assert isinstance(server.ask("flows/filter", {}), list)
    assert file.read_text() not in server.log.read_text()
    arguments = [" ".join(process.cmdline()) for process in server.small.processes()]
    # Addresses of stores may hold a password.
    assert not [line for line in arguments if file.read_text() in line or "sqlite:" in line]
    assert stat.S_IMODE((server.small.root / ".vit-vs-cnn").stat().st_mode) == 0o700


def shell(file: Path) -> dict[str, Any]:
    return {"prefect.deployments.steps.run_shell_script": {"script": f"touch {file}"}}


@pytest.mark.parametrize("way", ["pull step", "entrypoint", "command", "environment"])
def test_the_worker_runs_nothing_but_the_projects_own_flows(server: Server, tmp_path: Path, way: str) -> None:
    broken_in, local = tmp_path / "broken-in", server.deployment()
    evil = f"import pathlib\npathlib.Path({str(broken_in)!r}).touch()\n"
    (tmp_path / "sitecustomize.py").write_text(evil)
    (tmp_path / "evil.py").write_text(f"{evil}import prefect\n\n@prefect.flow\ndef run():\n    pass\n")
    deployment = {
        "name": f"evil-{way.replace(' ', '-')}",
        "flow_id": local["flow_id"],
        "work_pool_name": "local",
        "entrypoint": f"{tmp_path / 'evil.py'}:run" if way == "entrypoint" else local["entrypoint"],
        "pull_steps": [*local["pull_steps"], shell(broken_in)] if way == "pull step" else local["pull_steps"],
        "job_variables": {
            "command": {"command": f"touch {broken_in}"},
            "environment": {"env": {"PYTHONPATH": str(tmp_path)}},
        }.get(way, {}),
    }
    made = server.ask("deployments/", deployment)["id"]
    body = {"parameters": {}, "state": {"type": "SCHEDULED"}}
    state = server.end(server.ask(f"deployments/{made}/create_flow_run", body)["id"])
    assert state["type"] == "CRASHED"
    assert "deploy/local.yaml declares no deployment with its" in state["message"]
    assert not broken_in.exists()


def test_the_variables_of_a_single_flow_run_are_refused_too(server: Server, tmp_path: Path) -> None:
    broken_in = tmp_path / "broken-in"
    body = {"parameters": {}, "state": {"type": "SCHEDULED"}, "job_variables": {"command": f"touch {broken_in}"}}
    made = server.ask(f"deployments/{server.deployment()['id']}/create_flow_run", body)["id"]
    assert server.end(made)["type"] == "CRASHED"
    assert not broken_in.exists()
    assert server.run(name="own", stages=["prepare"])["type"] == "COMPLETED"
