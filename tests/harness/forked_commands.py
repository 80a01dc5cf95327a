"""Commands of vit-vs-cnn that start in a tenth of a second: forked from one process that has imported everything.

What they are is the same, a process of its own in a session of its own that runs `main`; imports take seconds.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KILLING = Path(__file__).parent / "killing"
# What the commands import when they run.
_IMPORTS = """
vit_vs_cnn.cli vit_vs_cnn.cli.doctor vit_vs_cnn.serving.predict vit_vs_cnn.orchestration.verify
vit_vs_cnn.registry.promotion vit_vs_cnn.registry.registration vit_vs_cnn.training.contestant
vit_vs_cnn.stages.prepare vit_vs_cnn.stages.eda vit_vs_cnn.stages.tune vit_vs_cnn.stages.train
vit_vs_cnn.stages.evaluate vit_vs_cnn.stages.robustness vit_vs_cnn.stages.cost vit_vs_cnn.stages.explain
vit_vs_cnn.stages.compare vit_vs_cnn.stages.register
mlflow.pytorch mlflow.store.tracking.sqlalchemy_store mlflow.store.model_registry.sqlalchemy_store
mlflow.store.artifact.local_artifact_repo sklearn.datasets matplotlib.backends.backend_agg dvc.config timm
"""


class Command:
    """A command that runs, or has ended."""

    def __init__(self, forks: "Forks", pid: int, log: Path) -> None:
        self._forks, self.pid, self.log = forks, pid, log
        self.returncode: int | None = None
        self.processor_seconds = 0.0

    def poll(self) -> int | None:
        """The exit code, negative for the signal that ended it; None while it runs."""
        if self.returncode is None and (ended := self._forks.ask({"poll": self.pid})):
            self.returncode, self.processor_seconds = ended
        return self.returncode

    def wait(self, seconds: float = 600) -> int:
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)
        return code

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")


class Forks:
    """The process that the commands are forked from."""

    def __init__(self, scratch: Path, imports: str = _IMPORTS, environment: Mapping[str, str] | None = None) -> None:
        self._scratch, self._count = scratch, 0
        foreign = ("MLFLOW_", "PREFECT_", "VIT_VS_CNN", "COVERAGE_", "KILL_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        kept |= dict(environment or {})
        paths = [str(KILLING), str(Path(__file__).parent.parent), *kept.get("PYTHONPATH", "").split(os.pathsep)]
        scripts = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        fixed = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PATH": scripts}
        self.environment = kept | fixed
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.forked_commands", imports],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(
        self, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, before: str = ""
    ) -> Command:
        """Start `vit-vs-cnn ARGUMENTS` in a folder; `before` is Python that is executed first."""
        self._count += 1
        log = self._scratch / f"{self._count}.log"
        whole = self.environment | dict(environment or {})
        asked = {
            "arguments": arguments, "folder": str(folder), "environment": whole, "log": str(log), "before": before
        }  # fmt: skip
        return Command(self, self.ask({"start": asked}), log)

    def call(
        self,
        folder: Path,
        *arguments: str,
        code: int = 0,
        environment: Mapping[str, str] | None = None,
        before: str = "",
    ) -> Command:
        """The command when it has ended, which has to be with this exit code."""
        command = self.start(folder, *arguments, environment=environment, before=before)
        ended = command.wait()
        assert ended == code, f"{' '.join(arguments)}: {ended}\n{command.output}"
        return command

    def ask(self, question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def _serve(answers: Any) -> dict[str, Any] | None:
    """Answer questions until there are none; in a forked process, what it is to be."""
    ended: dict[int, tuple[int, float]] = {}
    for line in sys.stdin:
        question = json.loads(line)
        if asked := question.get("start"):
            pid = os.fork()
            if pid == 0:
                answers.close()
                return dict(asked)
            answer: Any = pid
        else:
            with contextlib.suppress(ChildProcessError):
                while (found := os.wait4(-1, os.WNOHANG))[0]:
                    pid, status, used = found
                    ended[pid] = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
            answer = ended.get(question["poll"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return None


def _become(asked: Mapping[str, Any]) -> None:
    os.setsid()
    os.chdir(asked["folder"])
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor, stream in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(descriptor, stream)
    os.environ.clear()
    os.environ.update(asked["environment"])
    random.seed()
    exec(asked["before"])
    sys.argv = ["vit-vs-cnn", *asked["arguments"]]
    import sitecustomize

    sitecustomize.watch(" ".join(sys.argv))
    from vit_vs_cnn.cli import main

    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    # As the interpreter ends, without seconds of taking its modules apart.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    to_tests = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for module in sys.argv[1].split():
        importlib.import_module(module)
    gc.freeze()
    if (command := _serve(to_tests)) is not None:
        _become(command)
    os._exit(0)
