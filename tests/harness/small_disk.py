"""A disk of a few megabytes, which a test fills or has refuse to be written."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEGABYTE = 2**20


class SmallDisk:
    """A file system in memory, mounted at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ballast = root / "ballast"

    @contextmanager
    def only(self, free: int) -> Iterator[None]:
        """Leave so many bytes free."""
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(self.root).free - free))
        try:
            yield
        finally:
            self._ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Refuse every write."""
        assert _mount("-o", "remount,ro", self.root) == 0, "a process has a file open there"
        try:
            yield
        finally:
            _mount("-o", "remount,rw", self.root)


@contextmanager
def small_disk(root: Path, megabytes: int) -> Iterator[SmallDisk | None]:
    """Mount one at `root`, None where that is not allowed."""
    root.mkdir()
    if _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", root) != 0:
        yield None
        return
    try:
        yield SmallDisk(root)
    finally:
        subprocess.run(["umount", "--lazy", root], check=True)


def _mount(*arguments: str | Path) -> int:
    try:
        return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode
    except FileNotFoundError:
        return 127
