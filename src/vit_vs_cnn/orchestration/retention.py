"""What is left over: runs whose process was killed, and what has become old."""

import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from filelock import FileLock, Timeout

from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.paths import main_root, state_dir
from vit_vs_cnn.orchestration.active_runs import ActiveRun, dead_runs, forget_flow_run, living_runs, remove_active_run
from vit_vs_cnn.orchestration.prefect_client import client_at
from vit_vs_cnn.orchestration.prefect_server import ServerForARun
from vit_vs_cnn.orchestration.workspace import IN_PLACE, old_workspaces, remove_workspace

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_PAGE = 200


@dataclass(frozen=True)
class Removed:
    """What retention removed: flow runs, isolated workspaces, checkpoints, megabytes of DVC's cache."""

    flow_runs: int
    workspaces: int
    checkpoints: int
    cache_mb: float


def report_dead_runs(api: str) -> None:
    """Tell Prefect of the runs whose process was killed: they have crashed, and do not run for ever."""
    untold = [marker for marker in dead_runs() if marker.flow_run_id]
    if not untold:
        return
    with client_at(api) as client:
        for marker in untold:
            _crash(client, marker)
            forget_flow_run(marker)


def remove_dead_runs() -> list[str]:
    """Remove the workspaces of runs whose process was killed, and tell Prefect of their end; their names.

    What they finished is in DVC's cache, and their training checkpoint is kept: started again they go on from there.
    """
    if any(marker.flow_run_id for marker in dead_runs()):
        server = ServerForARun()
        server.wait()
        report_dead_runs(server.api)
    names = []
    for marker in dead_runs():
        if marker.name != IN_PLACE:
            remove_workspace(Path(marker.workspace))
        remove_active_run(marker.name)
        names.append(marker.name)
    return names


def apply_retention(api: str, days: float) -> Removed:
    """Remove flow runs that ended and workspaces and checkpoints that were not used for `days` days.

    Then remove from DVC's cache what no commit, no experiment and no workspace refers to. Raises UserError while a run
    is going on: what it has just put into the cache is not referred to yet.
    """
    going_on = [marker.name for marker in living_runs()]
    if going_on:
        raise UserError(f"run {', '.join(going_on)} is going on: wait for its end, then clean.")
    with client_at(api) as client:
        flow_runs = _remove_flow_runs(client, datetime.now(UTC) - timedelta(days=days))
    old = old_workspaces(days)
    for workspace in old:
        remove_workspace(workspace)
    return Removed(flow_runs, len(old), _remove_checkpoints(days), _collect_garbage())


def _crash(client: "SyncPrefectClient", marker: ActiveRun) -> None:
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    assert marker.flow_run_id
    message = f"Process {marker.pid} was killed; starting the run again continues it."
    try:
        flow_run = client.read_flow_run(UUID(marker.flow_run_id))
        if flow_run.state is None or not flow_run.state.is_final():
            _crash_tasks(client, flow_run.id, message)
            client.set_flow_run_state(flow_run.id, Crashed(message=message), force=True)
    except ObjectNotFound:
        return  # another server's run, or one that was deleted meanwhile


def _crash_tasks(client: "SyncPrefectClient", flow_run_id: UUID, message: str) -> None:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.states import Crashed

    of_the_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    for task_run in client.read_task_runs(flow_run_filter=of_the_run):
        if task_run.state is None or not task_run.state.is_final():
            client.set_task_run_state(task_run.id, Crashed(message=message), force=True)


def _remove_flow_runs(client: "SyncPrefectClient", before: datetime) -> int:
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterEndTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import TERMINAL_STATES
    from prefect.types import DateTime

    old = FlowRunFilter(
        end_time=FlowRunFilterEndTime(before_=DateTime.fromtimestamp(before.timestamp(), UTC)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES))),
    )
    count = 0
    while page := client.read_flow_runs(flow_run_filter=old, limit=_PAGE):
        for flow_run in page:
            client.delete_flow_run(flow_run.id)
        count += len(page)
    return count


def _remove_checkpoints(days: float) -> int:
    limit = datetime.now(UTC).timestamp() - days * 86_400
    removed = 0
    for folder in (state_dir() / "checkpoints").glob("*/"):
        with suppress(Timeout), FileLock(f"{folder}.lock", timeout=0):
            if folder.stat().st_mtime < limit:
                shutil.rmtree(folder)
                removed += 1
    return removed


def _collect_garbage() -> float:
    root = main_root()
    cache = root / ".dvc" / "cache"
    before = _megabytes(cache)
    projects = [str(folder.parent) for folder in (root / "runs").glob("*/dvc.yaml")]
    answer = subprocess.run(
        [sys.executable, "-m", "dvc", "gc", "--workspace", "--all-commits", "--all-experiments", "--force"]
        + (["--projects", *projects] if projects else []),
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise RunError(f"`dvc gc` failed: {answer.stderr.strip()}")
    return before - _megabytes(cache)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
