"""`vit-vs-cnn up`: the servers, their pages and a worker, watched until the person has had enough."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.paths import main_root, state_dir
from vit_vs_cnn.core.process import exit_with_parent
from vit_vs_cnn.orchestration.artifacts import MLFLOW_UI_VARIABLE
from vit_vs_cnn.orchestration.deployments import POOL, deploy
from vit_vs_cnn.orchestration.ports import HOST, holder
from vit_vs_cnn.orchestration.prefect_server import (
    api_url,
    note_running_server,
    prefect_settings,
    server_command,
    wait_until_it_answers,
)
from vit_vs_cnn.orchestration.retention import report_dead_runs
from vit_vs_cnn.tracking.store import tracking_server, tracking_uri

_SECONDS_TO_STOP = 8.0
_SECONDS_BETWEEN_LOOKS = 1.0
_MOST_RESTARTS = 5


@dataclass(frozen=True)
class Ports:
    """Where the services listen, on loopback."""

    prefect: int
    mlflow: int
    worker: int
    optuna: int


@dataclass
class Service:
    """A service: how it is started, where it answers, and its process once it runs."""

    name: str
    command: list[str]
    health: str
    environment: Mapping[str, str]
    restarts: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def log(self) -> Path:
        """Where it writes what it has to say."""
        return state_dir() / "logs" / f"{self.name}.log"

    def start(self) -> None:
        """Start it and wait until it answers. Raises RunError where it does not."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=main_root(),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until_it_answers(self.health, self.process, self.log)

    def has_died(self) -> bool:
        """Whether it ran and has ended."""
        return self.process is not None and self.process.poll() is not None

    def stop(self) -> None:
        """End it with everything that it started."""
        if self.process is None:
            return
        # The worker's flow runs are told too, and end their stages in good order; the stages themselves are not told.
        below = _children(self.process.pid)
        self.process.terminate()
        for each in below:
            if _parent(each) == self.process.pid:
                _signal(each, signal.SIGTERM)
        deadline = time.monotonic() + _SECONDS_TO_STOP
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_SECONDS_TO_STOP)
        _, alive = psutil.wait_procs(below, timeout=max(0.0, deadline - time.monotonic()))
        for each in alive:
            for one in [*_children(each.pid), each]:
                _signal(one, signal.SIGKILL)
        self.process.kill()
        self.process.wait()


def up(ports: Ports, limit: int, tell: Callable[[str], None]) -> None:
    """Start the services, tell their addresses, keep them running until Ctrl-C, then stop them all.

    `limit` is how many flow runs the worker runs at once. Raises UserError where a port is taken, RunError where a
    service does not start or dies again and again.
    """
    for option, port in asdict(ports).items():
        who = holder(port)
        if who:
            raise UserError(f"port {port} is taken by {who}: end it, or choose another with --{option}-port.")
    environment = os.environ | prefect_settings() | {"PREFECT_API_URL": api_url(ports.prefect)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    services = _services(ports, limit, environment)
    # Where a shell started this in the background, Ctrl-C's signal would be ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        for service in services:
            tell(f"starting {service.name} …")
            service.start()
            if service.name == "prefect":
                note_running_server(api_url(ports.prefect))
                deploy(main_root(), environment)
                report_dead_runs(api_url(ports.prefect))
        tell(_addresses(ports))
        _watch(services, api_url(ports.prefect), tell)
    except KeyboardInterrupt:
        tell("stopping …")
    finally:
        note_running_server(None)
        # Once more Ctrl-C must not leave anything running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for service in reversed(services):
            service.stop()
    tell("stopped.")


def _services(ports: Ports, limit: int, environment: Mapping[str, str]) -> list[Service]:
    prefect = f"http://{HOST}:{ports.prefect}"
    services = [
        Service(
            "prefect",
            server_command(ports.prefect),
            f"{prefect}/api/health",
            # The pages are served from this address, and must talk to it and no other.
            {**environment, "PREFECT_UI_API_URL": f"{prefect}/api"},
        ),
        Service(
            "mlflow",
            exit_with_parent(
                "mlflow",
                "server",
                "--backend-store-uri",
                tracking_uri(),
                "--workers",
                "1",
                "--host",
                HOST,
                "--port",
                str(ports.mlflow),
            ),
            f"http://{HOST}:{ports.mlflow}/health",
            # Its job runner serves language models, with eight processes.
            {**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        ),
        Service(
            "worker",
            exit_with_parent(
                "prefect",
                "worker",
                "start",
                "--pool",
                POOL,
                "--type",
                "process",
                "--with-healthcheck",
                "--name",
                f"vit-vs-cnn-{ports.worker}",
                "--limit",
                str(limit),
            ),
            f"http://{HOST}:{ports.worker}/health",
            {
                **environment,
                "PREFECT_WORKER_WEBSERVER_PORT": str(ports.worker),
                MLFLOW_UI_VARIABLE: f"http://{HOST}:{ports.mlflow}",
            },
        ),
    ]
    if _has_dashboard():
        from vit_vs_cnn.tuning.storage import open_storage, storage_url

        open_storage(storage_url())  # the dashboard shows a storage, it does not make one
        command = exit_with_parent(
            "optuna_dashboard._cli", "--host", HOST, "--port", str(ports.optuna), "--quiet", storage_url()
        )
        services.append(Service("optuna", command, f"http://{HOST}:{ports.optuna}/dashboard", environment))
    # A tracking server that the user has needs no second one in front of it.
    return [service for service in services if service.name != "mlflow" or tracking_server() is None]


def _has_dashboard() -> bool:
    return find_spec("optuna_dashboard") is not None


def _watch(services: list[Service], api: str, tell: Callable[[str], None]) -> None:
    while True:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        for service in services:
            if not service.has_died():
                continue
            service.restarts += 1
            if service.restarts > _MOST_RESTARTS:
                raise RunError(f"{service.name} died {_MOST_RESTARTS} times; the end of {service.log} says why.")
            tell(f"{service.name} died; starting it again …")
            service.start()
        report_dead_runs(api)


def _addresses(ports: Ports) -> str:
    api = api_url(ports.prefect)
    return "\n".join(
        [
            "",
            f"Prefect   http://{HOST}:{ports.prefect}",
            f"MLflow    {tracking_server() or f'http://{HOST}:{ports.mlflow}'}",
            *([f"Optuna    http://{HOST}:{ports.optuna}/dashboard"] if _has_dashboard() else []),
            f"worker    http://{HOST}:{ports.worker}/health   (serves the pool {POOL!r})",
            "",
            "In another terminal, from any directory:",
            f"  export PREFECT_API_URL={api}",
            f"  {Path(sys.executable).parent / 'prefect'} deployment run 'vit-vs-cnn/local' -p preset=demo --watch",
            "",
            "Ctrl-C stops all of it.",
        ]
    )


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
