"""A process that does not outlive the one that started it: `python -m vit_vs_cnn.tied PID MODULE …`.

Killed with SIGKILL, a process cannot end its children. So each child watches its parent, and ends itself and its
process group when the parent is gone.
"""

import os
import runpy
import signal
import sys
import threading
import time

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_CLEAN_UP = 6.0


def tied_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a Python module tied to this process; it must be started in a session of its own."""
    return [sys.executable, "-m", __name__, str(os.getpid()), module, *arguments]


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.killpg(0, signal.SIGINT)
    time.sleep(_SECONDS_TO_CLEAN_UP)
    os.killpg(0, signal.SIGKILL)


def _main() -> None:
    _, parent, module, *arguments = sys.argv
    threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()
    # A shell that starts things in the background has them ignore it, and so would all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
