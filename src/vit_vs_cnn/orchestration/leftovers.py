"""What a killed process leaves of DVC and git in a workspace, where it would stop the next one."""

import json
import os
import sys
import time
from pathlib import Path

import psutil

from vit_vs_cnn.core.git import git
from vit_vs_cnn.core.process import GRACE_SECONDS
from vit_vs_cnn.core.records import write_atomically

# What the killed process had started may take its grace period to end, and a git command that runs ends before.
_WAIT_SECONDS = GRACE_SECONDS + 2.0
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_OF_A_WRITE = 1.0


def remove_leftovers_of_dvc(workspace: Path) -> None:
    """Remove the entries of processes that are gone from DVC's table of files in use, and a dvc.lock that was cut off.

    Without dvc.lock DVC finds what was done in its cache of runs.
    """
    _clear_files_in_use(workspace / ".dvc" / "tmp")
    lock = workspace / "dvc.lock"
    if not _is_whole(lock):
        time.sleep(_SECONDS_OF_A_WRITE)  # a DVC process may be writing it now
        if not _is_whole(lock):
            lock.unlink(missing_ok=True)
            print(f"note: {lock} was cut off and is removed; DVC's cache has what was done.", file=sys.stderr)


def remove_stale_git_locks(root: Path, workspace: Path) -> None:
    """Remove git's lock files in a worktree and among the experiments, which nobody writes but this project's runs.

    The caller holds the lock of git, so that only processes that a killed run has left may still be at work: they
    get the time to end.
    """
    places = [root / ".git" / "refs" / "exps"]
    answer = git(workspace, "rev-parse", "--absolute-git-dir") if (workspace / ".git").is_file() else None
    if answer is not None and answer.returncode == 0:
        places.append(Path(answer.stdout.strip()))
    found = _lock_files(places)
    deadline = time.monotonic() + _WAIT_SECONDS
    while (stale := found & _lock_files(places)) and time.monotonic() < deadline:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    for path, _ in stale:
        path.unlink(missing_ok=True)


def _lock_files(folders: list[Path]) -> set[tuple[Path, int]]:
    """The lock files, each with what distinguishes it from a later one of the same name."""
    found = set()
    for folder in folders:
        for path in folder.rglob("*.lock"):
            try:
                found.add((path, path.stat().st_mtime_ns))
            except FileNotFoundError:
                continue
    return found


def _clear_files_in_use(folder: Path) -> None:
    """Do what DVC does when it finds an entry, but for ids that other processes have now, and a table that was cut off.

    A table that cannot be read stops every command of DVC; a process with the id of a dead one blocks its files.
    """
    from dvc.lock import make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    path = folder / RWLOCK_FILE
    if not path.is_file():
        return
    with make_lock(os.fspath(folder / RWLOCK_LOCK), tmp_dir=os.fspath(folder)):
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            readers, writers = dict(table.get("read", {})), dict(table.get("write", {}))
            read = {name: [one for one in users if _is_dvc(one["pid"])] for name, users in readers.items()}
            kept = {
                "read": {name: users for name, users in read.items() if users},
                "write": {name: one for name, one in writers.items() if _is_dvc(one["pid"])},
            }
        except (ValueError, TypeError, KeyError, AttributeError):
            path.unlink()
            return
        if kept != {"read": readers, "write": writers}:
            write_atomically(path, json.dumps(kept))


def _is_dvc(pid: int) -> bool:
    """Whether the process runs and is one of DVC."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "dvc" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _is_whole(lock: Path) -> bool:
    """Whether DVC can read the lock file, or there is none."""
    from dvc.exceptions import DvcException
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import load_yaml
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(load_yaml(lock))
    except FileNotFoundError:
        return True
    except (DvcException, Invalid):
        return False
    return True
