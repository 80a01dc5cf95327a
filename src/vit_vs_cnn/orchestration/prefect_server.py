"""Prefect's server for this project: its state stays inside the project, it listens on loopback only."""

import atexit
import base64
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.own_pages import LOOPBACK, OwnPagesOnly
from vit_vs_cnn.core.paths import main_root, state_dir
from vit_vs_cnn.core.private_files import read_or_make_secret
from vit_vs_cnn.core.process import exit_with_parent, stop_tree
from vit_vs_cnn.core.sqlite import require_sound_database

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

HOST = "127.0.0.1"
POOL = "local"
ROOT_VARIABLE = "VIT_VS_CNN_ROOT"
_START_SECONDS = 120.0
_STOP_SECONDS = 10.0
_SHORTEST_RETENTION_SECONDS = 3601


def prefect_settings() -> dict[str, str]:
    """Prefect's settings for this project, for its server and for every process that talks to it.

    What the environment sets already stays: another server (PREFECT_API_URL) and its key, another database.
    """
    ours = {
        "PREFECT_HOME": str(state_dir() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # In memory, Prefect's default, the slots of a run that was killed would stay taken after a restart.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # By default a stage that waits for a slot asks again after half a minute.
        "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "0.3",
        # SQLite has one writer at a time: wait for it rather than give up.
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        # It would call runs Late that only wait for the worker, several at once, and lock itself out of SQLite.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        # It asks again after 2, 4, 8 … seconds: a run survives four minutes without a server, by default one.
        "PREFECT_CLIENT_MAX_RETRIES": "7",
        "PREFECT_WORKER_QUERY_SECONDS": "3",
        "PREFECT_WORKER_WEBSERVER_HOST": HOST,
    }
    url = os.environ.get("PREFECT_API_URL")
    if url is None:
        return ours | {name: value for name, value in os.environ.items() if name in ours} | _key_settings()
    if urlsplit(url).hostname in LOOPBACK:
        ours |= _key_settings()
    return ours | {name: value for name, value in os.environ.items() if name in ours}


def _key_settings() -> dict[str, str]:
    return {"PREFECT_API_AUTH_STRING": api_key()}


def api_key_file() -> Path:
    """The file with the key of this project's server, for its owner alone."""
    return state_dir() / "prefect" / "api-key"


def api_key() -> str:
    """The key that Prefect's API asks for, made once, so that terminals opened before a restart still have it."""
    return read_or_make_secret(api_key_file(), lambda: f"vit-vs-cnn:{secrets.token_urlsafe(24)}")


def server_settings(api: str, keep_days: float) -> dict[str, str]:
    """The environment of a server at `api`, which removes flow runs that ended more than `keep_days` days ago.

    Raises UserError where its database is damaged.
    """
    require_sound_database(state_dir() / "prefect" / "prefect.db")
    port = urlsplit(api).port
    own = {
        "PREFECT_SERVER_API_AUTH_STRING": api_key(),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",
    }
    retention = {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(
            max(_SHORTEST_RETENTION_SECONDS, round(keep_days * 86_400))
        ),
    }
    return retention | os.environ | prefect_settings() | own | _key_settings() | {"PREFECT_API_URL": api}


def server_command(port: int) -> list[str]:
    """The command that starts the server: Prefect's, behind the check of who asks."""
    application = f"{__name__}:create_app"
    return exit_with_parent(
        "uvicorn", application, "--factory", "--host", HOST, "--port", str(port), "--log-level", "warning"
    )


def create_app() -> OwnPagesOnly:
    """Prefect's server, for its own pages and for programs of this machine that have the key."""
    from prefect.server.api.server import create_app as create_prefect_app

    from vit_vs_cnn.orchestration.prefect_database import let_writers_wait

    let_writers_wait()
    return OwnPagesOnly(create_prefect_app(final=True))


def api_url(port: int) -> str:
    """Where programs reach the server."""
    return f"http://{HOST}:{port}/api"


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class RunServer:
    """The server for one run: that of PREFECT_API_URL, that of `vit-vs-cnn up`, or a new one.

    A new one begins to start here, answers after `wait`, and ends with this process, when Prefect has sent the last
    logs to it. `api` is its address.
    """

    def __init__(self, keep_days: float) -> None:
        known = os.environ.get("PREFECT_API_URL") or running_server()
        self._process: subprocess.Popen[bytes] | None = None
        if known:
            self.api = known
            return
        port = free_port()
        self.api = api_url(port)
        self._log = state_dir() / "prefect" / "server.log"
        self._log.unlink(missing_ok=True)
        environment = server_settings(self.api, keep_days) | {"PREFECT_UI_ENABLED": "false"}
        self._process = start_logged(server_command(port), environment, self._log)
        atexit.register(stop_tree, self._process, signal.SIGTERM, _STOP_SECONDS)

    def wait(self) -> None:
        """Wait until it answers.

        Raises UserError where PREFECT_API_URL names a server that does not, RunError where a new one does not start.
        """
        if self._process is not None:
            wait_until_it_answers(f"{self.api}/health", self._process, self._log)
        elif not answers(f"{self.api}/health"):
            raise UserError(f"PREFECT_API_URL: no server answers at {self.api}: start it, or unset the variable.")


def start_logged(command: Sequence[str], environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """Start a process in its own session, in the project folder, with its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=main_root(),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait for a server that was just started. Raises RunError where it ends or stays silent."""
    deadline = time.monotonic() + _START_SECONDS
    while not answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise RunError(f"{url} does not answer: {last[0].strip()} (all of it: {log})")
        time.sleep(0.1)


def answers(url: str, key: str | None = None) -> bool:
    """Whether a server answers at `url`, to whom has its key where one is given."""
    login = {"Authorization": f"Basic {base64.b64encode(key.encode()).decode()}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=login), timeout=30) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def running_server_file() -> Path:
    """The file with the API address of the server of `vit-vs-cnn up` while it runs: runs on this machine use it."""
    return state_dir() / "up.url"


def running_server() -> str | None:
    """The API address of the server of `vit-vs-cnn up`, None where it does not run.

    Another project's may listen there after `up` was killed: it does not know this one's key.
    """
    api = running_server_file().read_text(encoding="utf-8") if running_server_file().is_file() else ""
    return api if api and answers(f"{api}/admin/version", api_key()) else None


@contextmanager
def client_at(api: str) -> Iterator["SyncPrefectClient"]:
    """A synchronous client of the server whose API is at `api`."""
    # Prefect reads its settings when it is imported.
    os.environ.update(prefect_settings())
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        yield client


def deploy(environment: Mapping[str, str], pool: str = POOL) -> None:
    """Create or update the work pool and all deployments of deploy/<pool>.yaml of the project.

    A schedule that a person switched on or off stays as it was. Raises RunError where Prefect refuses.
    """
    file = f"deploy/{pool}.yaml"
    with client_at(environment["PREFECT_API_URL"]) as client:
        from prefect.client.schemas.actions import WorkPoolCreate
        from prefect.exceptions import ObjectAlreadyExists

        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        active = {
            (deployment.id, schedule.slug or schedule.id): schedule.active
            for deployment in client.read_deployments()
            for schedule in deployment.schedules
        }
        answer = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", file, "--all"],
            cwd=main_root(),
            env={**environment, ROOT_VARIABLE: str(main_root())},
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode != 0:
            raise RunError(f"{file} cannot be deployed: {answer.stdout.strip()} {answer.stderr.strip()}")
        for deployment in client.read_deployments():
            for schedule in deployment.schedules:
                if active.get((deployment.id, schedule.slug or schedule.id), schedule.active) != schedule.active:
                    client.update_deployment_schedule(deployment.id, schedule.id, active=not schedule.active)
