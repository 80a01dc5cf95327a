"""Database files, looked at before a library opens them: on a damaged one it would retry for minutes."""

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

from vit_vs_cnn.core.errors import UserError

_HEADER = b"SQLite format 3\0"
# Beyond this the pages are not read.
_LARGEST_READ = 64 * 2**20


def require_sound_database(path: Path) -> None:
    """Raise UserError where `path` exists and is no SQLite database, or a damaged one."""
    if not path.exists():
        return
    status = path.stat()
    problem = "is a folder" if path.is_dir() else _problem(path, status.st_size, status.st_mtime_ns)
    if problem:
        raise UserError(
            f"{path}: {problem}: restore it from a backup, or move it away and a new one is made; what DVC keeps "
            "(data, trained networks, figures) and records that were not delivered yet are elsewhere."
        )


@cache
def _problem(path: Path, size: int, _: int) -> str | None:
    """What is wrong with the file; a process that asks again and again reads it again when it has changed."""
    if size == 0:
        return None
    with path.open("rb") as file:
        if file.read(len(_HEADER)) != _HEADER:
            return "is not an SQLite database"
    try:
        with closing(sqlite3.connect(f"file:{path.resolve().as_posix()}?mode=ro", uri=True, timeout=60)) as database:
            check = "quick_check(1)" if size <= _LARGEST_READ else "schema_version"
            (found,) = database.execute(f"PRAGMA {check}").fetchone()
    except sqlite3.OperationalError as error:
        # Locked, or on a disk that fails: the library that opens it says more.
        return f"is damaged ({error})" if "malformed" in str(error) else None
    except sqlite3.DatabaseError as error:
        return f"is damaged ({error})"
    return None if found == "ok" or isinstance(found, int) else f"is damaged ({found.splitlines()[0]})"
