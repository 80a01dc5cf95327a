"""A stage's output while it runs: log and progress of its task in Prefect, and the terminal of `vit-vs-cnn run`."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Self

from vit_vs_cnn.core.console import Progress, printable

if TYPE_CHECKING:
    from uuid import UUID

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_SECONDS_BETWEEN_UPDATES = 2.0
_terminal: ContextVar["Bars | None"] = ContextVar("terminal", default=None)


@contextmanager
def shown_on_terminal() -> Iterator[None]:
    """Print the lines of all stages and, where the output is a terminal, a bar below them for each that runs."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}")
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        _terminal.set(bars)
        yield


def say(text: str) -> None:
    """Log a line about the flow run as a whole, and print it; to be used inside a flow."""
    from prefect import get_run_logger

    get_run_logger().info(text)
    if (terminal := _terminal.get()) is not None:
        terminal.console.print(text)


class StageOutput:
    """A context manager that passes a stage's output on; to be used inside its Prefect task."""

    def __init__(self, stage: str) -> None:
        from prefect import get_run_logger

        self._stage = stage
        self._logger = get_run_logger()
        self._terminal = _terminal.get()
        self._bar: TaskID | None = None
        self._artifact: UUID | None = None
        self._percent = 0
        self._next_update = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal is not None and self._bar is not None:
            self._terminal.remove_task(self._bar)
        if self._artifact is not None:
            self._update_artifact()

    def line(self, text: str) -> None:
        """Log a line of the stage's output, and print it."""
        text = printable(text)
        self._logger.info(text)
        if self._terminal is not None:
            self._terminal.console.print(f"{self._stage:<16}  {text}")

    def progress(self, progress: Progress) -> None:
        """Show a step of the stage's progress bar; in Prefect every other second."""
        if self._terminal is not None:
            if self._bar is None:
                self._bar = self._terminal.add_task(f"{self._stage:<16}", total=100, text="")
            text = f"{progress.task} {progress.text}"
            self._terminal.update(self._bar, completed=progress.percent, text=text)
        self._percent = progress.percent
        if time.monotonic() >= self._next_update:
            self._update_artifact()
            self._next_update = time.monotonic() + _SECONDS_BETWEEN_UPDATES

    def _update_artifact(self) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if self._artifact is None:
            key = "progress-" + re.sub(r"[^a-z0-9]+", "-", self._stage)
            created = create_progress_artifact(self._percent, key=key, description=f"Progress of {self._stage}")
            assert not hasattr(created, "__await__")
            self._artifact = created
        else:
            update_progress_artifact(self._artifact, self._percent)
