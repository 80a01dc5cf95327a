"""Servers on loopback, and clients that ask them together, for benchmarks."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import click
import psutil
from sqlalchemy import create_engine, text

from vit_vs_cnn.core.process import stop_tree
from vit_vs_cnn.orchestration.prefect_server import free_port, start_logged, wait_until_it_answers

# PostgreSQL's own limit is 100.
CONNECTIONS = 400
# Connects a client, and returns what it then does.
Client = Callable[[], Callable[[], object]]


@dataclass(frozen=True)
class Cost:
    """What clients took together: wall seconds, and the CPU seconds of clients and of a server with its processes.

    The latter hardly depend on what else the machine does. `most` is the most that was observed, less what was before.
    """

    seconds: float
    clients: float
    server: float
    most: float


def cost_of(clients: Sequence[Client], server_pid: int, observe: Callable[[], float] = lambda: 0.0) -> Cost:
    """Have clients, each a process, begin together when all are connected, and wait for the last."""
    context = get_context("fork")
    gate, cpu, before = context.Barrier(len(clients) + 1), context.Queue(), observe()

    def run(client: Client) -> None:
        try:
            act = client()
        except BaseException:
            gate.abort()
            raise
        gate.wait()
        start = cpu_seconds(os.getpid())
        act()
        cpu.put(cpu_seconds(os.getpid()) - start)

    processes = [context.Process(target=run, args=(client,)) for client in clients]
    for process in processes:
        process.start()
    gate.wait()
    start, cpu_before, most = time.perf_counter(), cpu_seconds(server_pid), observe()
    for process in processes:
        while process.is_alive():
            process.join(0.5)
            most = max(most, observe())
    seconds = time.perf_counter() - start
    if any(process.exitcode for process in processes):
        sys.exit(f"{len(clients)} clients: exit codes {[process.exitcode for process in processes]}")
    used = sum(cpu.get() for _ in processes)
    return Cost(seconds, used, cpu_seconds(server_pid) - cpu_before, most - before)


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process, of those that it has started, and of those that have ended."""
    process, total = psutil.Process(pid), 0.0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += sum(each.cpu_times()[:4])
    return total


@contextmanager
def postgres(database: str) -> Iterator[tuple[str, int]]:
    """The address of a database in a new PostgreSQL server, which refuses to run as root, and the server's process."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        raise click.ClickException("PostgreSQL's server programs are not in /usr/lib/postgresql: install postgresql.")
    owner = "postgres" if os.geteuid() == 0 else None
    data, port = Path(tempfile.mkdtemp()) / "data", free_port()
    data.mkdir()
    data.parent.chmod(0o755)
    if owner:
        shutil.chown(data, owner)

    def call(program: str, *arguments: object) -> None:
        command = [str(programs / program), *map(str, arguments)]
        subprocess.run(command, user=owner, check=True, capture_output=True, cwd=data)

    call("initdb", "-D", data, "-A", "trust", "-U", "team")
    call("pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", f"-p {port} -k {data} -N {CONNECTIONS}", "start")
    try:
        call("createdb", "-h", "127.0.0.1", "-p", port, "-U", "team", database)
        pid = int((data / "postmaster.pid").read_text().split()[0])
        yield f"postgresql+psycopg2://team@127.0.0.1:{port}/{database}", pid
    finally:
        call("pg_ctl", "-D", data, "-m", "fast", "stop")
        shutil.rmtree(data.parent)


def connections(url: str) -> float:
    """How many connections others have to the server of this database."""
    engine = create_engine(url)
    with engine.connect() as connection:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid()"
        count = connection.execute(text(asked)).scalar_one()
    engine.dispose()
    return float(count)


@contextmanager
def server(command: Sequence[str], url: str, log: Path) -> Iterator[int]:
    """The process of a server that has begun to answer at `url`."""
    process = start_logged(command, os.environ, log)
    try:
        wait_until_it_answers(url, process, log)
        yield process.pid
    finally:
        stop_tree(process)


def has_proxy() -> bool:
    """Whether Caddy is installed."""
    return shutil.which("caddy") is not None


@contextmanager
def proxy(ports: Sequence[int], folder: Path) -> Iterator[tuple[int, int]]:
    """A port of Caddy, which passes each request to one of these ports of loopback, and Caddy's process."""
    port, file = free_port(), folder / "Caddyfile"
    upstreams = " ".join(f"127.0.0.1:{each}" for each in ports)
    own = "{\n admin off\n auto_https off\n}"
    file.write_text(f"{own}\nhttp://127.0.0.1:{port} {{\n reverse_proxy {upstreams}\n}}\n", encoding="utf-8")
    command = ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
    own_folders = environment({"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)})
    with own_folders, server(command, f"http://127.0.0.1:{port}/health", folder / "caddy.log") as pid:
        yield port, pid


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, and of those that it starts, until the context ends."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
