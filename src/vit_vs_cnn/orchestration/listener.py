"""What a stage says, passed on: to its task's log and progress in Prefect, and to the terminal if there is one."""

import re
import time
from typing import TYPE_CHECKING, Self

from vit_vs_cnn.core.console import Progress
from vit_vs_cnn.orchestration.display import display

if TYPE_CHECKING:
    from uuid import UUID

_SECONDS_BETWEEN_UPDATES = 2.0


class StageListener:
    """A context manager, to be used inside the stage's task."""

    def __init__(self, stage: str) -> None:
        from prefect import get_run_logger

        self._stage = stage
        self._logger = get_run_logger()
        self._artifact: UUID | None = None
        self._next_update = 0.0
        self._last = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        display().done(self._stage)
        if self._artifact is not None:
            self._show(self._last)

    def line(self, text: str) -> None:
        """A line of the stage's output."""
        self._logger.info(text)
        display().line(self._stage, text)

    def progress(self, progress: Progress) -> None:
        """A step of the stage's progress bar; Prefect's page is told of it every other second."""
        display().progress(self._stage, progress)
        self._last = progress.percent
        if time.monotonic() >= self._next_update:
            self._show(progress.percent)
            self._next_update = time.monotonic() + _SECONDS_BETWEEN_UPDATES

    def _show(self, percent: int) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if self._artifact is None:
            key = "progress-" + re.sub(r"[^a-z0-9]+", "-", self._stage)
            created = create_progress_artifact(percent, key=key, description=f"Progress of {self._stage}")
            assert not hasattr(created, "__await__")
            self._artifact = created
        else:
            update_progress_artifact(self._artifact, percent)
