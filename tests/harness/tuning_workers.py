"""Worker processes of a study that sleeps."""

import os
import subprocess
import sys
from pathlib import Path

from harness import sleeping_study as sleeper
from vit_vs_cnn.tuning.study import TuningStudy


class Workers:
    """Worker processes of a sleeping study, with short heartbeats; the first `together` of them begin at once."""

    def __init__(self, tuning: TuningStudy, url: str, seconds: float, folder: Path, together: int = 1) -> None:
        command = [sys.executable, sleeper.__file__, url, tuning.name, str(seconds), str(together)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._start = lambda: subprocess.Popen(command, cwd=folder, env=environment)
        self.processes: list[subprocess.Popen[bytes]] = []

    def add(self, count: int) -> None:
        self.processes += [self._start() for _ in range(count)]

    def wait(self) -> list[int]:
        return [process.wait(600) for process in self.processes]
