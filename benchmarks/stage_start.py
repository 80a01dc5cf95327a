"""The command of a stage, which also says on stderr when its own work begins, in CPU seconds.

    python benchmarks/stage_start.py train vit --seed 0

That is where the stage's function is called. What it imports later is counted by itself. overhead.py reads both.
"""

import builtins
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from vit_vs_cnn.cli import program
from vit_vs_cnn.core.start_up import without_collecting


def main() -> None:
    """Run the stage that the command line names, as `vit-vs-cnn` does."""
    # The command imports it in the same way, a little later.
    with without_collecting():
        stage = import_module(f"vit_vs_cnn.stages.{sys.argv[1]}")
    vars(stage)["run"] = _measured(stage.run)
    program()


def _measured(work: Callable[..., None]) -> Callable[..., None]:
    def run(*arguments: object) -> None:
        start_up = time.process_time()
        imports = _CountedImports()
        builtins.__import__ = imports
        try:
            work(*arguments)
        finally:
            print(f"start-up {start_up:.3f} s, imports later {imports.seconds:.3f} s", file=sys.stderr)

    return run


class _CountedImports:
    """Python's import, and the CPU seconds that the main thread spent in it; one within another counts once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._import = builtins.__import__
        self._is_within = False

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self._is_within or threading.current_thread() is not threading.main_thread():
            return self._import(*arguments, **named)
        self._is_within, start = True, time.thread_time()
        try:
            return self._import(*arguments, **named)
        finally:
            self.seconds += time.thread_time() - start
            self._is_within = False


if __name__ == "__main__":
    main()
