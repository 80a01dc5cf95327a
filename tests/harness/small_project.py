"""A project whose stages do what a test asks of them, in the shape of the real one: DVC, git, params.yaml, flows."""

import base64
import copy
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil
from ruamel.yaml import YAML

from factories import REPOSITORY, TINY
from harness.counting import COUNTED

DVC_YAML = """
stages:
  prepare:
    cmd: python stage.py prepare
    params: [seeds]
    deps: [stage.py]
    outs: [out/prepare]
  eda:
    cmd: python stage.py eda
    deps: [out/prepare]
    outs: [out/eda]
  train:
    foreach: ${models}
    do:
      cmd: python stage.py train-${key}
      meta: {accelerator: true}
      params: ["models.${key}"]
      deps: [out/prepare]
      outs: ["out/train-${key}"]
  compare:
    cmd: python stage.py compare
    deps: [out/eda, out/train-vit, out/train-resnet]
    outs: [out/compare]
"""

# What it does is in the file that CONTROL names, by run and stage; what it did is appended to the file of HISTORY.
# While it is told to `hold` it goes on, for a thousand seconds at most: longer than any test waits for it.
STAGE = """
import importlib.util, json, os, pathlib, subprocess, sys, time
name, run = sys.argv[1], os.environ.get("VIT_VS_CNN_RUN", "in-place")
def told():
    return json.loads(pathlib.Path(os.environ["CONTROL"]).read_text()).get(run, {}).get(name, {})
control = told()
history = pathlib.Path(os.environ["HISTORY"])
def note(what):
    code = importlib.util.find_spec("vit_vs_cnn").origin
    facts = {"run": run, "stage": name, "what": what, "time": time.time(), "pid": os.getpid(), "code": code}
    with history.open("a") as file:
        file.write(json.dumps(facts) + "\\n")
note("start")
tries = sum(json.loads(line)["run"] == run and json.loads(line)["stage"] == name and json.loads(line)["what"] == "start"
            for line in history.read_text().splitlines())
if "child" in control:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print(f"{name} works: 50%| 1/2, 1 it/s")
print(f"{name} says hello")
time.sleep(control.get("seconds", 0))
deadline = time.time() + 1000
while told().get("hold") and time.time() < deadline:
    time.sleep(0.05)
if tries <= control.get("fails", 0):
    failure = {"message": control["sentence"], "retryable": control.get("retryable", False)}
    pathlib.Path(os.environ["VIT_VS_CNN_ERROR_REPORT"]).write_text(json.dumps(failure))
    print("the last line of the log")
    sys.exit(2)
if control.get("code"):
    sys.exit(control["code"])
pathlib.Path("out").mkdir(exist_ok=True)
pathlib.Path("out", name).write_text(f"{name} {os.environ['PREFECT__FLOW_RUN_ID']}")
note("end")
"""


class SmallProject:
    """The project and what its stages did."""

    dvc_yaml, stage, ignored = DVC_YAML, STAGE, "/out\n"

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self._control, self._history = folder / "control.json", folder / "history.jsonl"
        self._control.write_text("{}")
        self._history.touch()
        (self.root / "presets").mkdir(parents=True)
        (self.root / "presets" / "other.yaml").write_text("seeds: [77]\n")
        (self.root / "dvc.yaml").write_text(self.dvc_yaml)
        (self.root / "stage.py").write_text(self.stage)
        (self.root / ".gitignore").write_text(f"{self.ignored}/runs/\n/.vit-vs-cnn/\n/mlruns/\n__pycache__/\n")
        shutil.copytree(REPOSITORY / "flows", self.root / "flows", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(REPOSITORY / "deploy", self.root / "deploy", ignore=shutil.ignore_patterns("secrets"))
        (self.root / ".dvc").mkdir()
        for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore"):
            if (REPOSITORY / name).is_file():
                shutil.copy(REPOSITORY / name, self.root / name)
        self.write_params({})
        self.git("init", "--quiet")
        self.git("add", "--all")
        self.git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "-m", "small")

    def clone(self, folder: Path) -> Self:
        """A clone of the repository; its stages are told what to do, and note what they did, in the same files."""
        other = copy.copy(self)
        other.root = folder
        subprocess.run(["git", "clone", "--quiet", str(self.root), str(folder)], check=True)
        return other

    def write_params(self, flow: dict[str, Any]) -> None:
        with (self.root / "params.yaml").open("w") as file:
            YAML().dump({**TINY, "flow": {"retry_delay_seconds": 0.1, **flow}}, file)

    def control(self, run: str, **stages: dict[str, Any]) -> None:
        """Say what the stages of a run do; `train_vit` is train@vit."""
        known = json.loads(self._control.read_text())
        known[run] = {name.replace("_", "-"): what for name, what in stages.items()}
        draft = self._control.with_suffix(".draft")
        draft.write_text(json.dumps(known))
        draft.replace(self._control)

    def history(self, run: str | None = None, what: str | None = None) -> list[dict[str, Any]]:
        facts = [json.loads(line) for line in self._history.read_text().splitlines()]
        return [fact for fact in facts if run in (None, fact["run"]) and what in (None, fact["what"])]

    def started(self, run: str) -> list[str]:
        return [fact["stage"] for fact in self.history(run, "start")]

    def environment(self) -> dict[str, str]:
        foreign = ("PREFECT_", "MLFLOW_", "VIT_VS_CNN_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        return kept | {
            **COUNTED,
            "CONTROL": str(self._control),
            "HISTORY": str(self._history),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "2",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", "from vit_vs_cnn.cli import program; program()", *arguments]

    def call(self, *arguments: str, code: int = 0, timeout: float = 600) -> str:
        """What `vit-vs-cnn …` prints."""
        answer = subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert answer.returncode == code, answer.stdout + answer.stderr
        return answer.stdout + answer.stderr

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.root, capture_output=True, text=True, check=True
        ).stdout.strip()

    def experiments(self) -> str:
        return subprocess.run(
            [sys.executable, "-m", "dvc", "exp", "list", "--name-only"],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def processes(self) -> list[psutil.Process]:
        """All living processes that belong to the project: they have its control file in their environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("CONTROL") == str(self._control):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


def ask_json(url: str, body: Any = None, method: str | None = None, key: str | None = None) -> Any:
    """The answer of an API, a text where it is no JSON, None while no server answers."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    if key is not None:
        headers["authorization"] = f"Basic {base64.b64encode(key.encode()).decode()}"
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    for _ in range(10):
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            # SQLite was busy; Prefect's own clients ask again too.
            if error.code != 503:
                raise
            time.sleep(0.5)
        except (urllib.error.URLError, ConnectionError):
            return None
        else:
            return json.loads(text) if "json" in (answer.headers["content-type"] or "") else text
    raise AssertionError(f"{url}: unavailable")


def wait_for(what: Callable[[], Any], seconds: float = 600.0) -> Any:
    """The first truthy value of `what()`, asked repeatedly."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return value
