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


@contextmanager
def database_server(*databases: str, user: str = "tester", password: str | None = None) -> Iterator[int]:
    """The port of a server with these databases, which the user owns; without a password everybody is let in."""
    assert PROGRAMS is not None
    # Not pytest's folder: PostgreSQL refuses to run as root, and no other user may read that one.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    folder.chmod(0o755)
    data, port = folder / "data", free_port()
    data.mkdir()
    if OWNER:
        shutil.chown(data, OWNER)

    def call(program: str, *arguments: str | Path) -> None:
        subprocess.run([PROGRAMS / program, *arguments], user=OWNER, check=True, capture_output=True, cwd=data)

    authentication: list[str | Path] = ["-A", "trust"]
    if password is not None:
        (folder / "password").write_text(password)
        authentication = ["-A", "scram-sha-256", "--pwfile", folder / "password"]
    call("initdb", "-D", data, *authentication, "-U", user, "--no-sync")
    settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} -c fsync=off"
    call("pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", settings, "start")
    try:
        for name in databases:
            call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", user, name)
        yield port
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)
