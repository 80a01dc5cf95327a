"""What a person at a terminal sees of a run: the lines of all stages, and a bar for each that is at work."""

import sys
from typing import TYPE_CHECKING

from vit_vs_cnn.core.console import Progress

if TYPE_CHECKING:
    from rich.progress import TaskID


class Silent:
    """No terminal: what is to be seen is in Prefect's pages."""

    def line(self, stage: str, text: str) -> None:
        """Nothing is shown."""

    def progress(self, stage: str, progress: Progress) -> None:
        """Nothing is shown."""

    def done(self, stage: str) -> None:
        """Nothing is shown."""


class Terminal(Silent):
    """A context manager that shows lines as `stage  text` and, where the output is a terminal, the bars below."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as Bars

        self._console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
        ]
        self._bars: Bars = Bars(*columns, console=self._console, transient=True)
        self._ids: dict[str, TaskID] = {}

    def __enter__(self) -> "Terminal":
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def line(self, stage: str, text: str) -> None:
        """Show a line of a stage's output."""
        self._console.print(f"{stage:<16}  {text}")

    def progress(self, stage: str, progress: Progress) -> None:
        """Show how far a stage is."""
        if stage not in self._ids:
            self._ids[stage] = self._bars.add_task(f"{stage:<16}", total=100, text="")
        self._bars.update(self._ids[stage], completed=progress.percent, text=f"{progress.task} {progress.text}")

    def done(self, stage: str) -> None:
        """Take the stage's bar away."""
        if stage in self._ids:
            self._bars.remove_task(self._ids.pop(stage))


_display: Silent = Silent()


def show_on(display: Silent) -> None:
    """Show what this process runs from now on `display`."""
    global _display  # noqa: PLW0603 - a process has one terminal
    _display = display


def display() -> Silent:
    """Where this process shows what it runs."""
    return _display
