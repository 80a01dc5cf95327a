"""A PostgreSQL server on loopback for as long as a test needs it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vit_vs_cnn.orchestration.prefect_server import free_port

PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
OWNER = "postgres" if os.geteuid() == 0 else None
needs_postgres = pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL's server programs are not on this machine")


class DatabaseServer:
    """A server that can be stopped and started again."""

    def __init__(self, data: Path) -> None:
        self.port, self._data = free_port(), data

    def start(self) -> None:
        settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._data} -c fsync=off"
        self.call("pg_ctl", "-D", self._data, "-w", "-l", self._data / "log", "-o", settings, "start")

    def stop(self, mode: str = "immediate") -> None:
        """End it: `immediate` as a crash does, `fast` as its administrator does."""
        self.call("pg_ctl", "-D", self._data, "-m", mode, "stop")

    def call(self, program: str, *arguments: str | Path) -> None:
        assert PROGRAMS is not None
        command = [PROGRAMS / program, *arguments]
        subprocess.run(command, user=OWNER, check=True, capture_output=True, cwd=self._data)


@contextmanager
def database_server(*databases: str, user: str = "tester", password: str | None = None) -> Iterator[int]:
    """The port of a server with these databases, which the user owns; without a password everybody is let in."""
    with restartable_server(*databases, user=user, password=password) as server:
        yield server.port


@contextmanager
def restartable_server(*databases: str, user: str = "tester", password: str | None = None) -> Iterator[DatabaseServer]:
    """The server itself."""
    # Not pytest's folder: PostgreSQL refuses to run as root, and no other user may read that one.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    folder.chmod(0o755)
    data = folder / "data"
    data.mkdir()
    if OWNER:
        shutil.chown(data, OWNER)
    server = DatabaseServer(data)
    authentication: list[str | Path] = ["-A", "trust"]
    if password is not None:
        (folder / "password").write_text(password)
        authentication = ["-A", "scram-sha-256", "--pwfile", folder / "password"]
    server.call("initdb", "-D", data, *authentication, "-U", user, "--no-sync")
    server.start()
    try:
        for name in databases:
            server.call("createdb", "-h", "127.0.0.1", "-p", str(server.port), "-U", user, name)
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
