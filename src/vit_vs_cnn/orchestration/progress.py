"""A stage's output while it runs: log and progress of its task in Prefect, and the terminal of `vit-vs-cnn run`."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Self, TextIO

from vit_vs_cnn.core.console import Progress, printable

if TYPE_CHECKING:
    from uuid import UUID

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_SECONDS_BETWEEN_UPDATES = 2.0
# What a person has to know even of a stage that goes well.
_REMARK = re.compile(r"^(note|warning|error|WARNING|ERROR): ")
# What DVC says while it runs a stage.
_OF_DVC = re.compile(r"^(Running stage '|> |Stage '|Data and pipelines are up to date|Generating lock file)")
_LONGEST_RESULT = 150
_NAME_WIDTH = 18


class Level(IntEnum):
    """What is printed of a run: warnings, or also a line for each stage, or all that the stages say."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_terminal: ContextVar["_Terminal | None"] = ContextVar("terminal", default=None)


@dataclass(frozen=True)
class _Terminal:
    """Where lines and bars are printed, and how many."""

    bars: "Bars"
    level: Level

    def print(self, text: str, level: Level = Level.NORMAL) -> None:
        """Print a line that is to be seen from this level on."""
        if self.level >= level:
            self.bars.console.print(text)


@contextmanager
def shown_on_terminal(level: Level = Level.NORMAL, file: TextIO | None = None) -> Iterator[None]:
    """Print a line for each stage to `file` (None: stdout), and a bar for each that runs where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(file=file or sys.stdout, highlight=False, markup=False, soft_wrap=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}")
    is_shown = console.is_terminal and level > Level.QUIET
    with Bars(*columns, console=console, transient=True, disable=not is_shown) as bars:
        _terminal.set(_Terminal(bars, level))
        yield


def say(text: str) -> None:
    """Log a line about the flow run as a whole, and print it; to be used inside a flow."""
    from prefect import get_run_logger

    get_run_logger().info(text)
    if (terminal := _terminal.get()) is not None:
        terminal.print(text, Level.QUIET if _REMARK.match(text) else Level.NORMAL)


def _level_of(text: str) -> Level:
    """From which level on a line is to be seen that a stage said."""
    if _REMARK.match(text):
        return Level.NORMAL if text.startswith("note") else Level.QUIET
    return Level.VERBOSE


class StageOutput:
    """A context manager that passes a stage's output on; to be used inside its Prefect task."""

    def __init__(self, stage: str) -> None:
        from prefect import get_run_logger

        self._stage = stage
        self._logger = get_run_logger()
        self._terminal = _terminal.get()
        self._lines: list[str] = []
        self._bar: TaskID | None = None
        self._artifact: UUID | None = None
        self._percent = 0
        self._next_update = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal is not None and self._bar is not None:
            self._terminal.bars.remove_task(self._bar)
        if self._artifact is not None:
            self._update_artifact()

    def line(self, text: str) -> None:
        """Log a line of the stage's output, and print it where all of it is to be seen, or it is a remark."""
        text = printable(text)
        self._logger.info(text)
        self._lines.append(text)
        if self._terminal is not None:
            self._terminal.print(f"{self._stage:<{_NAME_WIDTH}}  {text}", _level_of(text))

    def say(self, text: str) -> None:
        """Log a line about the stage, and print it."""
        self._logger.info(text)
        if self._terminal is not None:
            self._terminal.print(f"{self._stage:<{_NAME_WIDTH}}  {text}")

    def done(self, seconds: float | None) -> None:
        """Say how long the stage took, None where it was cached, and print that with what it said last, its result."""
        said = [text for text in self._lines if not _REMARK.match(text) and not _OF_DVC.match(text)]
        # The stage's name stands at the beginning of the line already.
        result = re.sub(r"^[a-z]+( [\w-]+)?( seed \d+)?: ", "", said[-1]) if said and seconds is not None else ""
        took = "cached" if seconds is None else f"{seconds:.1f} s"
        self._logger.info(took)
        if self._terminal is not None:
            shown = result if len(result) <= _LONGEST_RESULT else f"{result[:_LONGEST_RESULT]}…"
            self._terminal.print(f"{self._stage:<{_NAME_WIDTH}}  {took:>9}  {shown}".rstrip())

    def progress(self, progress: Progress) -> None:
        """Show a step of the stage's progress bar; in Prefect every other second."""
        if self._terminal is not None:
            if self._bar is None:
                self._bar = self._terminal.bars.add_task(f"{self._stage:<{_NAME_WIDTH}}", total=100, text="")
            text = f"{progress.task} {progress.text}"
            self._terminal.bars.update(self._bar, completed=progress.percent, text=text)
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
