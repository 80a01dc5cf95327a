"""Which runs are going on: a small file each, so that a run whose process was killed is noticed."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.core.process import ProcessIdentity


@dataclass(frozen=True)
class ActiveRun:
    """A run and the process that runs it, as `ProcessIdentity` knows it."""

    name: str
    workspace: str
    host: str
    pid: int
    process_start: float
    flow_run_id: str | None

    @classmethod
    def of_this_process(cls, name: str, workspace: Path, flow_run_id: str | None) -> Self:
        """The marker of a run that this process runs."""
        process = ProcessIdentity.current()
        return cls(name, str(workspace), process.host, process.pid, process.start, flow_run_id)

    def is_dead(self) -> bool:
        """Whether the run's process is gone without having ended the run; another host's cannot be known."""
        return ProcessIdentity(self.host, self.pid, self.process_start).is_gone()


def save_active_run(marker: ActiveRun) -> None:
    """Note that a run goes on, whole or not at all."""
    path = _path(marker.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(asdict(marker)), encoding="utf-8")
    unfinished.replace(path)


def remove_active_run(name: str) -> None:
    """Note that the run has ended."""
    _path(name).unlink(missing_ok=True)


def dead_runs() -> list[ActiveRun]:
    """Runs whose process was killed."""
    return [marker for marker in _markers() if marker.is_dead()]


def living_runs() -> list[ActiveRun]:
    """Runs that are going on."""
    return [marker for marker in _markers() if not marker.is_dead()]


def forget_flow_run(marker: ActiveRun) -> None:
    """Note that Prefect knows of the dead run's end."""
    save_active_run(replace(marker, flow_run_id=None))


def _markers() -> list[ActiveRun]:
    return [ActiveRun(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(_folder().glob("*.json"))]


def _folder() -> Path:
    return state_dir() / "running"


def _path(name: str) -> Path:
    return _folder() / f"{name}.json"
