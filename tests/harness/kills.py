"""SIGKILL at seeded moments: as a process makes its n-th change of a file, or after a share of its processor time."""

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import psutil

from harness.forked_commands import KILLING, Command

# How many kills the whole campaign makes; every test takes its share.
KILLS = "VIT_VS_CNN_KILLS"


@dataclass(frozen=True)
class Moment:
    """When: at the n-th change of a file within a folder by the process whose command line has `process`.

    `opened`: as that file stands open and empty. `alone`: that process dies, and nobody else.
    """

    process: str
    change: int
    opened: bool = False
    alone: bool = True


class Killer:
    """Kills what runs in a folder, and counts."""

    def __init__(self, scratch: Path, within: Path, random: Random) -> None:
        self._scratch, self.within, self.random, self._moments = scratch, within, random, 0
        self.done: Counter[str] = Counter()

    def environment(self, moment: Moment) -> dict[str, str]:
        """What has a process that is started with it notice the moment."""
        self._moments += 1
        facts = vars(moment) | {"within": str(self.within), "reached": str(self._reached)}
        return {"KILL_AT": json.dumps(facts)}

    def git_environment(self, command: str, blocks: int) -> dict[str, str]:
        """What has a call of `git COMMAND` killed as it writes a file, after so many blocks of 1,024 bytes."""
        self._moments += 1
        path = f"{KILLING}{os.pathsep}{os.environ['PATH']}"
        kill = f"{self._reached} {blocks} {command}"
        return {"KILL_GIT": kill, "KILL_REAL_GIT": str(shutil.which("git")), "PATH": path}

    @property
    def _reached(self) -> Path:
        return self._scratch / f"moment-{self._moments}"

    def has_come(self) -> bool:
        """Whether the last moment has come."""
        return self._reached.exists()

    def wait(self, command: Command, victims: Callable[[], Iterable[psutil.Process]] | None = None) -> bool:
        """Wait for the moment, and kill these (without any: the one process has killed itself). Whether it came."""
        deadline = time.monotonic() + 600
        while not self.has_come() and command.poll() is None:
            assert time.monotonic() < deadline, command.output
            time.sleep(0.01)
        if not self.has_come():
            return False
        for process in victims() if victims else ():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return True

    def kill_after(self, command: Command, seconds: float) -> bool:
        """Kill a command when it has used so much processor time. Whether it had not ended before."""
        ticks = os.sysconf("SC_CLK_TCK")
        while command.poll() is None:
            with suppress(OSError):
                used = Path(f"/proc/{command.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
                if sum(map(int, used)) / ticks >= seconds:
                    os.kill(command.pid, signal.SIGKILL)
                    return command.wait() == -signal.SIGKILL
            time.sleep(0.005)
        return False


def changes_of(count_file: Path) -> dict[str, int]:
    """How many files each command changed that ran with KILL_COUNT."""
    found: dict[str, int] = {}
    for line in count_file.read_text().splitlines():
        command, changes = json.loads(line)
        found[command] = max(changes, found.get(command, 0))
    return found


def counting(count_file: Path, within: Path) -> dict[str, Any]:
    """The environment in which commands count their changes of files."""
    return {"KILL_COUNT": str(count_file), "KILL_WITHIN": str(within)}
