"""Processes: their identity, how they exit with their parent, and how a whole tree of them is stopped.

`python -m vit_vs_cnn.core.process PID MODULE …` runs a module that exits when process PID, its parent, has ended: a
parent that is killed by SIGKILL cannot stop its children, so each child watches its parent.
"""

import gc
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import psutil

from vit_vs_cnn.core.start_up import leave_quickly_after

_POLL_SECONDS = 0.5
GRACE_SECONDS = 6.0


@dataclass(frozen=True)
class ProcessIdentity:
    """A process on a host; `start` (seconds after the machine's) distinguishes it from a later one with the same id."""

    host: str
    pid: int
    start: float

    @classmethod
    def current(cls) -> Self:
        """The calling process."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _start_of(pid))

    def is_gone(self) -> bool:
        """Whether the process has ended; a process of another host counts as alive, because it cannot be checked."""
        if self.host != socket.gethostname():
            return False
        try:
            return abs(_start_of(self.pid) - self.start) > 1.0
        except psutil.NoSuchProcess:
            return True


class Terminated(KeyboardInterrupt):
    """SIGTERM: to everything that runs it is what Ctrl-C is, a reason to end in good order."""


def end_on_signals() -> None:
    """Have SIGINT raise KeyboardInterrupt and SIGTERM raise Terminated, however this process was started.

    A shell that starts a process in the background makes it, and all that it starts, ignore SIGINT.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _raise_terminated)


def _start_of(pid: int) -> float:
    """When a process started: not by the clock, which somebody may set while it runs."""
    return psutil.Process(pid).create_time() - psutil.boot_time()


def exit_with_parent(module: str, *arguments: str) -> list[str]:
    """The command that runs a Python module which exits with this process; start it in a session of its own."""
    return exit_with_process(os.getpid(), module, *arguments)


def exit_with_process(parent: int, *module: str) -> list[str]:
    """The same, of a module with its arguments, for the process `parent` that starts it."""
    return [sys.executable, "-m", __name__, str(parent), *module]


def is_orphan(pid: int) -> bool:
    """Whether the process is, or was started by, one of `exit_with_parent` whose parent has ended: it ends soon."""
    try:
        leader = psutil.Process(os.getpgid(pid))
        command = leader.cmdline()
        return __name__ in command and command[command.index(__name__) + 1] != str(leader.ppid())
    except (psutil.NoSuchProcess, ProcessLookupError):
        return True


def search_path() -> str:
    """PATH with this interpreter's commands first, for processes whose environment is not activated."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def stop_tree(
    process: "subprocess.Popen[Any]", sent: signal.Signals = signal.SIGINT, grace_seconds: float = GRACE_SECONDS
) -> None:
    """Signal the group that `process` leads, wait for its whole tree, and kill what is left after the grace period."""
    try:
        tree = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, sent)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return
    deadline = time.monotonic() + grace_seconds
    # psutil must not wait for the leader: it would take its exit code from whoever waits for `process`.
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace_seconds)
    _, alive = psutil.wait_procs(tree, timeout=max(0.0, deadline - time.monotonic()))
    for child in alive:
        with suppress(psutil.NoSuchProcess):
            for grandchild in child.children(recursive=True):
                grandchild.kill()
            child.kill()
    if process.poll() is None:
        process.kill()
        process.wait()


def _raise_terminated(*_: object) -> None:
    raise Terminated


def exit_with_dvc() -> None:
    """Exit when DVC is gone, where this process is a stage that DVC runs.

    Nobody would record its outputs, and the next start must not find it writing them.
    """
    if "DVC_STAGE" in os.environ:
        _exit_with(os.getppid(), partial(os.kill, os.getpid()))


def _exit_with(parent: int, send: Callable[[signal.Signals], None]) -> None:
    """Watch the parent in a thread, and send these signals to this process when it has ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        send(signal.SIGINT)
        time.sleep(GRACE_SECONDS)
        send(signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _main() -> None:
    _, parent, module, *arguments = sys.argv
    # Python looks for garbage so often that it doubles the time of imports.
    gc.set_threshold(50_000, 20, 50)
    _exit_with(int(parent), partial(os.killpg, 0))
    # A shell that starts a process in the background makes it ignore SIGINT, and so all that the process starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [module, *arguments]
    leave_quickly_after(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True))


if __name__ == "__main__":
    _main()
