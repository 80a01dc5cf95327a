"""Which runs are active: a small file for each, so that a run whose process was killed is noticed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import runs_dir, state_dir
from vit_vs_cnn.core.process import ProcessIdentity
from vit_vs_cnn.core.records import Record


class ActiveRun(Record):
    """A run, the process that runs it, and its flow run in Prefect, until Prefect knows of its end."""

    name: str
    workspace: Path
    process: ProcessIdentity
    flow_run_id: str | None

    def save(self) -> None:
        """Note that the run is active, and wait until nothing needs that there is none."""
        path = _path(self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write(path)
        with _starting_lock():
            pass

    def remove(self) -> None:
        """Note that the run has ended."""
        _path(self.name).unlink(missing_ok=True)


def active_runs(*, dead: bool) -> list[ActiveRun]:
    """Runs whose process was killed, or those that really run."""
    runs = []
    for path in sorted(_path("*").parent.glob("*.json")):
        try:
            runs.append(ActiveRun.read(path, "remove it if no run is active"))
        except UserError:
            if path.exists():
                raise
    return [run for run in runs if run.process.is_gone() is dead]


@contextmanager
def no_active_run() -> Iterator[None]:
    """Keep runs from starting until the context ends. Raises UserError while one is active."""
    with _starting_lock():
        if active := active_runs(dead=False):
            raise UserError(
                f"run {', '.join(f'{run.name} on {run.process.host}' for run in active)} is active: wait for its end, "
                f"then clean; if that machine or container is gone, delete the run's file in {_path('*').parent}."
            )
        yield


def hold_dead_runs(*, unreported: bool = False) -> Iterator[ActiveRun]:
    """The runs whose process was killed, one after the other, each while nobody can start it again.

    `unreported` are those alone of whose end Prefect does not know yet; the others are free to start.
    """
    for run in active_runs(dead=True):
        if unreported and run.flow_run_id is None:
            continue
        with suppress(Timeout), FileLock(lock_file(run.name), timeout=0):
            if run in active_runs(dead=True):
                yield run


def lock_file(name: str) -> Path:
    """The file whose lock the process of a run holds."""
    return runs_dir() / f"{name}.lock"


def _starting_lock() -> FileLock:
    return FileLock(state_dir() / "running.lock")


def _path(name: str) -> Path:
    return state_dir() / "running" / f"{name}.json"
