"""What runs leave behind: dead runs; workspaces, checkpoints, downloads, records and cached data that are old."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from vit_vs_cnn.core.errors import RunError
from vit_vs_cnn.core.paths import PARAMS, RUN_FILE, bytes_in, main_root, runs_dir, state_dir
from vit_vs_cnn.data.object_store import downloads_dir
from vit_vs_cnn.orchestration.active_runs import active_runs, hold_dead_runs, no_active_run
from vit_vs_cnn.orchestration.dead_runs import report_dead_runs
from vit_vs_cnn.orchestration.prefect_server import RunServer
from vit_vs_cnn.orchestration.workspace import IN_PLACE, cache_dir, is_shared_cache, remove_workspace
from vit_vs_cnn.tracking.outbox import pending_keys
from vit_vs_cnn.tracking.retention import OldRuns, delete_runs, find_old_runs
from vit_vs_cnn.tracking.run import read_ref


@dataclass(frozen=True)
class Old:
    """What was not used for `days` days: workspaces, checkpoints, downloads, runs in MLflow; the bytes of all.

    `cached` are the bytes in DVC's cache that nothing refers to without these workspaces; None where other projects may
    use the cache.
    """

    days: float
    workspaces: tuple[Path, ...]
    checkpoints: tuple[Path, ...]
    downloads: tuple[Path, ...]
    runs: OldRuns
    size: int
    cached: int | None


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


def find_old(days: float) -> Old:
    """What was not used for `days` days, and of the runs in MLflow what nothing needs that stays.

    Raises UserError while a run is active.
    """
    with no_active_run():
        workspaces = _workspaces()
        old = tuple(folder for folder in workspaces if _is_old(folder / PARAMS, days))
        checkpoints = tuple(folder for folder in (state_dir() / "checkpoints").glob("*/") if _is_old(folder, days))
        downloads = tuple(folder for folder in downloads_dir().glob("*/") if _is_old(folder, days))
        runs = _old_runs(days, [folder for folder in workspaces if folder not in old])
        size = runs.size + sum(map(bytes_in, (*old, *checkpoints, *downloads)))
        return Old(days, old, checkpoints, downloads, runs, size, _bytes_of_garbage(old))


def remove_old(old: Old) -> float | None:
    """Remove what was found, unless it is in use again; the megabytes that DVC's cache then had in vain.

    From the cache is removed what no commit, no experiment and no workspace refers to. None where other projects
    may refer to what is in it. Runs wait meanwhile: what one has just put into the cache is not referred to yet.
    Raises UserError while one is active.
    """
    with no_active_run():
        for workspace in old.workspaces:
            _remove(workspace, workspace / PARAMS, old.days, remove_workspace)
        for folder in (*old.checkpoints, *old.downloads):
            _remove(folder, folder, old.days, shutil.rmtree)
        # A training that was resumed meanwhile is young again, a version that was registered needs its run.
        still = _old_runs(old.days, _workspaces())
        delete_runs(
            [run_id for run_id in old.runs.run_ids if run_id in still.run_ids],
            [model_id for model_id in old.runs.model_ids if model_id in still.model_ids],
        )
        return _collect_garbage()


def _workspaces() -> list[Path]:
    return [path.parent for path in runs_dir().glob(f"*/{PARAMS}")]


def _old_runs(days: float, workspaces: Collection[Path]) -> OldRuns:
    """The old runs in MLflow that neither the `workspaces` nor the project's own results nor MLflow itself need."""
    folders = [main_root(), *workspaces]
    trained = [file.parent for folder in folders for file in (folder / "trained").glob(f"**/{RUN_FILE}")]
    return find_old_runs(days, {*(read_ref(folder).key for folder in trained), *pending_keys()})


def _is_old(path: Path, days: float) -> bool:
    return path.stat().st_mtime < time.time() - days * 86_400


def _remove(folder: Path, dated: Path, days: float, remove: Callable[[Path], None]) -> None:
    """Remove a folder unless a process holds it, or has used it since it was found to be old."""
    with suppress(Timeout), FileLock(f"{folder}.lock", timeout=0):
        if _is_old(dated, days):
            remove(folder)


def _bytes_of_garbage(old: Collection[Path]) -> int | None:
    """What `dvc gc` would remove without the workspaces `old`; None where the cache is not this project's alone."""
    if is_shared_cache(main_root()):
        return None
    named = [line.removeprefix("Removing ") for line in _dvc_gc("--dry", without=old).splitlines()]
    return sum(Path(path).stat().st_size for path in named if Path(path).is_file())


def _collect_garbage() -> float | None:
    """Run `dvc gc`; the megabytes that it removed, None where the cache is not this project's alone."""
    if is_shared_cache(main_root()):
        return None
    before = bytes_in(cache := cache_dir(main_root()))
    _dvc_gc()
    return (before - bytes_in(cache)) / 1e6


def _dvc_gc(*options: str, without: Collection[Path] = ()) -> str:
    """What `dvc gc` prints, which keeps what a commit, an experiment or a workspace refers to, not those `without`."""
    projects = [str(path.parent) for path in runs_dir().glob("*/dvc.yaml") if path.parent not in without]
    command = [sys.executable, "-m", "dvc", "gc", "--workspace", "--all-commits", "--all-experiments", "--force"]
    if projects:
        command += ["--projects", *projects]
    answer = subprocess.run([*command, *options], cwd=main_root(), capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise RunError(f"`dvc gc` failed: {answer.stderr.strip()}")
    return answer.stdout
