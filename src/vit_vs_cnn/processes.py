"""Which process does a piece of work, so that others notice when it was killed."""

import os
import socket
from dataclasses import dataclass
from typing import Self

import psutil


@dataclass(frozen=True)
class ProcessIdentity:
    """A process on a host; `start` (seconds since 1970) tells a reused process id apart."""

    host: str
    pid: int
    start: float

    @classmethod
    def of_this_process(cls) -> Self:
        """The process that asks."""
        return cls._of(os.getpid())

    @classmethod
    def of_parent(cls) -> Self:
        """The process that started it."""
        return cls._of(os.getppid())

    def is_here(self) -> bool:
        """Whether it runs on this host, so that `is_gone` can know."""
        return self.host == socket.gethostname()

    def is_gone(self) -> bool:
        """Whether the process has ended; another host's cannot be known and counts as living."""
        if not self.is_here():
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.start) > 1.0
        except psutil.NoSuchProcess:
            return True

    @classmethod
    def _of(cls, pid: int) -> Self:
        return cls(socket.gethostname(), pid, psutil.Process(pid).create_time())
