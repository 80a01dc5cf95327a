"""What runs leave behind: runs whose process was killed, and workspaces, checkpoints and cached data that are old."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.paths import PARAMS, main_root, runs_dir, state_dir
from vit_vs_cnn.orchestration.active_runs import active_runs, hold_dead_runs
from vit_vs_cnn.orchestration.dead_runs import report_dead_runs
from vit_vs_cnn.orchestration.prefect_server import RunServer
from vit_vs_cnn.orchestration.workspace import IN_PLACE, cache_dir, remove_workspace


@dataclass(frozen=True)
class Removed:
    """How many isolated workspaces and checkpoints were removed, and how many megabytes of DVC's cache.

    The megabytes are None where the cache lies outside the project: other projects may refer to what is in it.
    """

    workspaces: int
    checkpoints: int
    cache_mb: float | None


def remove_dead_runs(keep_days: float) -> list[str]:
    """Remove the workspaces of runs whose process was killed, and report their end to Prefect; their names.

    What they finished is in DVC's cache, and their training checkpoint is kept: started again they continue from there.
    """
    if any(run.flow_run_id for run in active_runs(dead=True)):
        server = RunServer(keep_days)
        server.wait()
        report_dead_runs(server.api)
    removed = []
    for run in hold_dead_runs():
        if run.name != IN_PLACE:
            remove_workspace(run.workspace)
        run.remove()
        removed.append(run.name)
    return removed


def apply_retention(days: float) -> Removed:
    """Remove workspaces and checkpoints that were not used for `days` days.

    Then remove from DVC's cache, if it is in the project, what no commit, no experiment and no workspace refers to.
    Raises UserError while a run is active: what it has just put into the cache is not referred to yet.
    """
    active = [run.name for run in active_runs(dead=False)]
    if active:
        raise UserError(f"run {', '.join(active)} is active: wait for its end, then clean.")
    workspaces = {path.parent: path for path in runs_dir().glob(f"*/{PARAMS}")}
    checkpoints = {folder: folder for folder in (state_dir() / "checkpoints").glob("*/")}
    return Removed(
        workspaces=_remove_old(workspaces, days, remove_workspace),
        checkpoints=_remove_old(checkpoints, days, shutil.rmtree),
        cache_mb=_collect_garbage(),
    )


def _remove_old(folders: Mapping[Path, Path], days: float, remove: Callable[[Path], None]) -> int:
    """Remove the folders that no process holds and whose path beside them is old; how many there were."""
    limit = time.time() - days * 86_400
    removed = 0
    for folder, dated in folders.items():
        with suppress(Timeout), FileLock(f"{folder}.lock", timeout=0):
            if dated.stat().st_mtime < limit:
                remove(folder)
                removed += 1
    return removed


def _collect_garbage() -> float | None:
    """Run `dvc gc`; the megabytes that it removed, None where the cache is not this project's alone."""
    cache = cache_dir(main_root())
    if not cache.is_relative_to(main_root()):
        return None
    before = _bytes_in(cache)
    projects = [str(path.parent) for path in runs_dir().glob("*/dvc.yaml")]
    command = [sys.executable, "-m", "dvc", "gc", "--workspace", "--all-commits", "--all-experiments", "--force"]
    if projects:
        command += ["--projects", *projects]
    answer = subprocess.run(command, cwd=main_root(), capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise RunError(f"`dvc gc` failed: {answer.stderr.strip()}")
    return (before - _bytes_in(cache)) / 1e6


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
