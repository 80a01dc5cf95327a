"""`vit-vs-cnn up`: the servers, their pages and a worker on this machine, watched until Ctrl-C."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from vit_vs_cnn.config.load import read_settings
from vit_vs_cnn.core.child_process import call_in_child
from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.paths import PARAMS, STORAGE_VARIABLE, main_root, state_dir, studies_file
from vit_vs_cnn.core.process import GRACE_SECONDS, exit_with_parent, is_orphan, search_path, stop_tree
from vit_vs_cnn.core.sqlite import require_sound_database
from vit_vs_cnn.orchestration.active_runs import active_runs
from vit_vs_cnn.orchestration.dead_runs import report_dead_runs
from vit_vs_cnn.orchestration.prefect_server import (
    HOST,
    POOL,
    api_key_file,
    api_url,
    deploy,
    running_server_file,
    server_command,
    server_settings,
    start_logged,
    wait_until_it_answers,
)
from vit_vs_cnn.tracking.pages import running_pages_file
from vit_vs_cnn.tracking.store import check_store, tracking_server, tracking_uri

# How many flow runs the worker runs at once: one that waits for others needs room for them.
RUNS_AT_ONCE_VARIABLE = "VIT_VS_CNN_RUNS_AT_ONCE"
_SECONDS_TO_STOP = 8.0
_SECONDS_BETWEEN_CHECKS = 1.0
_SECONDS_OF_LATE_EVENTS = 30.0  # Prefect may learn of a task after its flow run was set to Crashed
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
        """The file with its output."""
        return state_dir() / "logs" / f"{self.name}.log"

    def start(self) -> None:
        """Start it, if it was not started yet, and wait until it answers. Raises RunError where it does not."""
        if self.process is None or self.has_died():
            self.launch()
        assert self.process is not None
        wait_until_it_answers(self.health, self.process, self.log)

    def launch(self) -> None:
        """Start it."""
        self.process = start_logged(self.command, self.environment, self.log)

    def has_died(self) -> bool:
        """Whether it ran and has ended."""
        return self.process is not None and self.process.poll() is not None

    def stop(self) -> None:
        """Stop it with everything that it started."""
        # A worker ends its flow runs, each of which has a session of its own; what is left of the tree is killed.
        if self.process is not None:
            stop_tree(self.process, signal.SIGTERM, _SECONDS_TO_STOP)


def up(ports: Ports, limit: int, say: Callable[[str], None]) -> None:
    """Start the services, print their addresses, keep them running until Ctrl-C, then stop them all.

    `limit` is how many flow runs the worker runs at once. Raises UserError where a port is taken, RunError where a
    service does not start or dies again and again.
    """
    for option, port in asdict(ports).items():
        _wait_for_orphan(port)
        holder = _port_holder(port)
        if holder:
            raise UserError(f"port {port} is taken by {holder}: end it, or choose another with --{option}-port.")
    api = api_url(ports.prefect)
    environment = server_settings(api, read_settings(main_root() / PARAMS).flow.keep_days)
    environment["PATH"] = search_path()
    check_store()
    if STORAGE_VARIABLE not in os.environ:
        require_sound_database(studies_file())
    services = _services(ports, limit, environment)
    try:
        # Side by side, but for the worker, which looks for its pool when it starts.
        for service in services:
            if service.name != "worker":
                service.launch()
        for service in services:
            say(f"starting {service.name} …")
            service.start()
            if service.name == "prefect":
                running_server_file().write_text(api, encoding="utf-8")
                call_in_child(_register, environment, api)
            if service.name == "mlflow":
                running_pages_file().write_text(f"http://{HOST}:{ports.mlflow}", encoding="utf-8")
        say(_addresses(ports))
        _watch(services, api, say)
    except KeyboardInterrupt:
        say("stopping …")
    finally:
        running_server_file().unlink(missing_ok=True)
        running_pages_file().unlink(missing_ok=True)
        # A second signal must not leave anything running.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for service in reversed(services):
            service.stop()
    say("stopped.")


def _register(environment: Mapping[str, str], api: str) -> None:
    deploy(environment)
    report_dead_runs(api)


def _services(ports: Ports, limit: int, environment: Mapping[str, str]) -> list[Service]:
    prefect, mlflow, worker, optuna = (f"http://{HOST}:{port}" for port in asdict(ports).values())
    listen_mlflow = ("--host", HOST, "--port", str(ports.mlflow), "--workers", "1")
    name_worker = ("--name", f"vit-vs-cnn-{ports.worker}", "--limit", str(limit))
    worker_environment = {
        "PREFECT_WORKER_WEBSERVER_PORT": str(ports.worker),
        RUNS_AT_ONCE_VARIABLE: str(limit),
    }
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
            exit_with_parent("vit_vs_cnn.orchestration.mlflow_server", *listen_mlflow),
            f"{mlflow}/health",
            # The store and its password are no argument, which `ps` would show. The job runner serves language
            # models, with eight processes.
            {
                **environment,
                "MLFLOW_BACKEND_STORE_URI": tracking_uri(),
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
        ),
        Service(
            "worker",
            exit_with_parent("vit_vs_cnn.orchestration.worker", "--pool", POOL, *name_worker),
            f"{worker}/health",
            {**environment, **worker_environment},
        ),
    ]
    if _has_dashboard():
        # Not its own command, which takes the storage and its password as an argument that `ps` shows.
        command = exit_with_parent("vit_vs_cnn.orchestration.dashboard", "--port", str(ports.optuna))
        services.append(Service("optuna", command, f"{optuna}/dashboard", environment))
    # A tracking server that the user has needs no second one in front of it.
    return [service for service in services if service.name != "mlflow" or tracking_server() is None]


def _has_dashboard() -> bool:
    return find_spec("optuna_dashboard") is not None


def _watch(services: list[Service], api: str, say: Callable[[str], None]) -> None:
    report_until = 0.0
    while True:
        time.sleep(_SECONDS_BETWEEN_CHECKS)
        for service in filter(Service.has_died, services):
            service.restarts += 1
            if service.restarts > _MOST_RESTARTS:
                raise RunError(f"{service.name} died {_MOST_RESTARTS} times; the end of {service.log} says why.")
            say(f"{service.name} died; starting it again …")
            service.start()
        if any(run.flow_run_id for run in active_runs(dead=True)):
            report_until = time.monotonic() + _SECONDS_OF_LATE_EVENTS
        if time.monotonic() < report_until:
            report_dead_runs(api)


def _addresses(ports: Ports) -> str:
    optuna = f"Optuna    http://{HOST}:{ports.optuna}/dashboard\n" if _has_dashboard() else ""
    return f"""
Prefect   http://{HOST}:{ports.prefect}   (asks once for the key in {api_key_file()})
MLflow    {tracking_server() or f"http://{HOST}:{ports.mlflow}"}
{optuna}worker    http://{HOST}:{ports.worker}/health   (serves the pool {POOL!r})

In another terminal, from any directory:
  export PREFECT_API_URL={api_url(ports.prefect)} PREFECT_API_AUTH_STRING=$(cat {shlex.quote(str(api_key_file()))})
  {shlex.quote(str(Path(sys.executable).parent / "prefect"))} deployment run 'vit-vs-cnn/local' -p preset=demo --watch

Ctrl-C stops all of it."""


def _wait_for_orphan(port: int) -> None:
    """Where a service of a killed `up` still listens on `port`, wait for its end, which takes seconds."""
    deadline = time.monotonic() + GRACE_SECONDS + _SECONDS_BETWEEN_CHECKS
    while (pid := _listener(port)) and is_orphan(pid) and time.monotonic() < deadline:
        time.sleep(_SECONDS_BETWEEN_CHECKS)


def _port_holder(port: int) -> str | None:
    """The process that listens on `port` of loopback, in words; None where it is free."""
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return None
    with suppress(psutil.AccessDenied, psutil.NoSuchProcess):
        if pid := _listener(port):
            return f"process {pid} ({' '.join(psutil.Process(pid).cmdline())[:120]})"
    return "another process"


def _listener(port: int) -> int | None:
    """The id of the process that listens on `port`, None where there is none or the system does not say."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # macOS says it to root alone
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,):
            return connection.pid
    return None
