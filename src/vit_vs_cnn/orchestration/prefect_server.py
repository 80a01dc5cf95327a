"""Prefect's server for this project: its state stays inside the project, it listens on loopback only."""

import atexit
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.core.process import exit_with_parent
from vit_vs_cnn.orchestration.ports import HOST, free_port

_START_SECONDS = 120.0


def prefect_settings() -> dict[str, str]:
    """Prefect's settings for this project, for its server and for every process that talks to it.

    What the environment sets already stays: another server (PREFECT_API_URL), another database.
    """
    home = state_dir() / "prefect"
    ours = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # In memory, Prefect's default, the slots of a run that was killed would stay taken after a restart.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # A stage that waits for a slot asks again so often; by default a free accelerator idles for half a minute.
        "PREFECT_SERVER_TASKS_TAG_CONCURRENCY_SLOT_WAIT_SECONDS": "0.3",
        # SQLite has one writer at a time: wait for it rather than give up.
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        # It would call runs Late that only wait for the worker, several at once, and lock itself out of SQLite.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "3",
        "PREFECT_WORKER_WEBSERVER_HOST": HOST,
    }
    return ours | {key: value for key, value in os.environ.items() if key in ours}


def server_command(port: int) -> list[str]:
    """The command that starts the server."""
    return exit_with_parent("prefect", "server", "start", "--host", HOST, "--port", str(port))


def api_url(port: int) -> str:
    """Where programs reach the server."""
    return f"http://{HOST}:{port}/api"


class ServerForARun:
    """The server that PREFECT_API_URL names, the one of `vit-vs-cnn up`, or one of our own.

    Our own begins to start here, is there after `wait`, and ends with this process, when Prefect has sent the last
    logs to it. `api` is its address.
    """

    def __init__(self) -> None:
        known = os.environ.get("PREFECT_API_URL") or running_server()
        self._process: subprocess.Popen[bytes] | None = None
        if known:
            self.api = known
            return
        port = free_port()
        self.api = api_url(port)
        self._log = state_dir() / "prefect" / "server.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                server_command(port),
                env=os.environ | prefect_settings() | {"PREFECT_UI_ENABLED": "false", "PREFECT_API_URL": self.api},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        atexit.register(_end, self._process)

    def wait(self) -> None:
        """Wait until it answers.

        Raises UserError where PREFECT_API_URL names a server that does not, RunError where our own does not start.
        """
        if self._process is None:
            if not answers(f"{self.api}/health"):
                raise UserError(f"PREFECT_API_URL: no server answers at {self.api}: start it, or unset the variable.")
        else:
            wait_until_it_answers(f"{self.api}/health", self._process, self._log)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


def wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait for a server that was just started. Raises RunError where it ends or stays silent."""
    deadline = time.monotonic() + _START_SECONDS
    while not answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise RunError(f"{url} does not answer: {last[0].strip()} (all of it: {log})")
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether a server answers at `url`."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def note_running_server(url: str | None) -> None:
    """Remember, or with None forget, the server of `vit-vs-cnn up`, so that runs on this machine use it."""
    path = _note()
    if url is None:
        path.unlink(missing_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"api": url}), encoding="utf-8")


def running_server() -> str | None:
    """The API address of the server of `vit-vs-cnn up`, None where it does not run."""
    if not _note().is_file():
        return None
    url = str(json.loads(_note().read_text(encoding="utf-8"))["api"])
    return url if answers(f"{url}/health") else None


def _note() -> Path:
    return state_dir() / "up.json"
