"""A small project whose stages write the same for the same settings, its Prefect server, and forked runs of it."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from ruamel.yaml import YAML

from harness.forked_commands import Command, Forks
from harness.small_project import DVC_YAML, STAGE, SmallProject, ask_json
from vit_vs_cnn.core import paths
from vit_vs_cnn.core.process import stop_tree
from vit_vs_cnn.orchestration.prefect_server import (
    RunServer,
    api_key,
    prefect_settings,
    server_command,
    server_settings,
    start_logged,
)

STAGES = ("prepare", "eda", "train-vit", "train-resnet", "compare")
_WRITES = STAGE.index('pathlib.Path("out").mkdir')
_SAME_AGAIN = """
out = pathlib.Path("out", name)
out.mkdir(parents=True, exist_ok=True)
for part in range(3):
    (out / f"part-{part}").write_text(name + pathlib.Path("params.yaml").read_text()[:200])
note("end")
"""
_IMPORTS = """
vit_vs_cnn.cli vit_vs_cnn.orchestration.workspace vit_vs_cnn.orchestration.dag vit_vs_cnn.orchestration.retention
vit_vs_cnn.orchestration.artifacts vit_vs_cnn.models.build vit_vs_cnn.tracking.store
prefect prefect.flows prefect.task_runners prefect.artifacts prefect.client.orchestration prefect.concurrency.sync
"""


class KilledProject(SmallProject):
    """Nothing in it waits for an accelerator: the slot of a stage that was killed is free after a minute only."""

    dvc_yaml = DVC_YAML.replace("      meta: {accelerator: true}\n", "")
    # As a real stage does.
    exits_with_dvc = "from vit_vs_cnn.core.process import exit_with_dvc\nexit_with_dvc()\n"
    stage = f"{exits_with_dvc}{STAGE[:_WRITES]}{_SAME_AGAIN}"

    def outputs(self, name: str) -> dict[str, str]:
        """The digests of what the run made, of what DVC knows of it, and the files of its experiment."""
        folder = self.root / "runs" / name
        made = [*sorted((folder / "out").rglob("*")), folder / "params.yaml"]
        found = {str(file.relative_to(folder)): file.read_text() for file in made if file.is_file()}
        # The order of its stages is that of their ends.
        lock = json.dumps(YAML(typ="safe").load(folder / "dvc.lock"), sort_keys=True)
        files = self.git("ls-tree", "-r", "--format=%(path) %(objectname)", self._experiment(name)).splitlines()
        skipped = ("dvc.lock", ".dvc/tmp/")
        saved = {f"experiment/{path}": id_ for path, id_ in map(str.split, files) if not path.startswith(skipped)}
        return found | saved | {"dvc.lock": lock}

    def is_whole(self, name: str) -> bool:
        """Whether every stage has made what the run's settings say, and its experiment has these settings."""
        folder = self.root / "runs" / name
        params = (folder / "params.yaml").read_text()
        made = {file: file.read_text() for file in (folder / "out").rglob("part-*")}
        expected = {
            folder / "out" / stage / f"part-{part}": stage + params[:200] for stage in STAGES for part in range(3)
        }
        saved = self.git("show", f"{self._experiment(name)}:params.yaml") + "\n"
        return made == expected and saved == params

    def _experiment(self, name: str) -> str:
        return self.git("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}")


class RunningServer:
    """The Prefect server of a small project, which its runs find in their environment."""

    def __init__(self, small: SmallProject) -> None:
        self._small = small
        self._server = RunServer(30)
        self._key = api_key()
        self.settings = prefect_settings() | {
            "PREFECT_API_URL": self._server.api,
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        }
        self._server.wait()

    def ask(self, path: str, body: object = None) -> object:
        return ask_json(f"{self._server.api}/{path}", body, key=self._key)

    def unfinished(self) -> list[str]:
        """The flow runs and task runs that Prefect takes for alive."""
        alive = {"state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED", "CANCELLING"]}}}
        return [
            f"{kind} {found['name']}"
            for kind in ("flow_runs", "task_runs")
            for found in self.ask(f"{kind}/filter", {kind: alive})  # type: ignore[attr-defined]
        ]

    def start_again(self) -> None:
        """At the same address."""
        port = urlsplit(self._server.api).port
        assert port is not None
        environment = server_settings(self._server.api, 30)
        self._server._process = start_logged(server_command(port), environment, self._server._log)
        self._server.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._server._process is not None
        self._server._process.send_signal(number)

    def stop(self) -> None:
        if self._server._process:
            stop_tree(self._server._process)


@contextmanager
def served(small: SmallProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    """A server of the project, in whose folder the test works."""
    monkeypatch.chdir(small.root)
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    paths.project_root.cache_clear()
    paths.main_root.cache_clear()
    server = RunningServer(small)
    try:
        yield server
    finally:
        server.stop()
        paths.project_root.cache_clear()
        paths.main_root.cache_clear()


@contextmanager
def forks_for(small: SmallProject, server: RunningServer, scratch: Path) -> Iterator[Forks]:
    """Forked commands of the project, which have imported Prefect with its settings."""
    forks = Forks(scratch, _IMPORTS, small.environment() | server.settings)
    yield forks
    forks.close()


def processes(small: SmallProject, forks: Forks) -> list[psutil.Process]:
    """What runs of the project, but for the process that the commands are forked from."""
    return [process for process in small.processes() if process.pid != forks.pid]


def victims(small: SmallProject, forks: Forks, who: str, command: Command) -> Callable[[], list[psutil.Process]]:
    """Whom to kill: the `command` alone, it and `dvc`, or the whole `tree`."""

    def choose() -> list[psutil.Process]:
        found = processes(small, forks)
        is_killed = {
            "command": lambda process: process.pid == command.pid,
            "command and dvc": lambda process: process.pid == command.pid or "dvc" in process.cmdline(),
            "tree": lambda _: True,
        }[who]
        return [process for process in found if is_killed(process)]

    return choose
