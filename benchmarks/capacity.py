"""What do the servers that a team shares carry, and from how many clients on do they carry no more?

    python benchmarks/capacity.py --repeats 3
    python benchmarks/capacity.py --part trials --part serve --json capacity.json

Starts PostgreSQL (its programs must be installed), MLflow's and Prefect's server on loopback, with the commands of
deploy/compose.yaml, and has processes ask them that begin together:

trials     workers of a study whose trials do nothing: the database, and the lock under which trials are taken
mlflow     metrics logged to the server, written into outboxes, and delivered from these
prefect    flow runs of one empty task, in processes that go on, and each in a process of its own, by a worker
serve      requests of one image to processes of `vit-vs-cnn serve`, each at a port of its own; where Caddy is
           installed, also at one port for all of them, that of Caddy

Clients and servers share this machine's processors. Where these are used up the curve bends, so that servers of their
own carry these figures at the least. The median of the repeats counts.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import click

from record import json_option, mlflow_option, publish
from servers import Client, Cost, connections, cost_of, cpu_seconds, environment, has_proxy, postgres, proxy, server
from synthetic import register_untrained, synthetic_info
from vit_vs_cnn.config.load import merged_params, settings_of
from vit_vs_cnn.core.console import table
from vit_vs_cnn.core.paths import STATE_VARIABLE
from vit_vs_cnn.core.process import stop_tree
from vit_vs_cnn.orchestration.prefect_server import free_port, start_logged
from vit_vs_cnn.tuning.storage import open_storage
from vit_vs_cnn.tuning.study import TuningStudy, load_study, open_study
from vit_vs_cnn.tuning.worker import work

PROJECT = Path(__file__).parent.parent
PARTS = ("trials", "mlflow", "prefect", "serve")
WORKERS, CLIENTS, AT_ONCE, SERVERS = (1, 2, 4, 8, 16, 32), (1, 2, 4, 8), (1, 2, 4), (1, 2, 4)
TRIALS, CALLS, FLOW_RUNS, LOAD_SECONDS = 32, 100, 8, 5.0
RATE_ALONE = "{optimizer: {lr: {type: float, low: 1e-4, high: 1e-1, log: true}}}"
DEPLOY = f"""from prefect import flow
flow.from_source({str(PROJECT / "benchmarks")!r}, "empty_flow.py:empty").deploy("empty", "pool", build=False)"""

Note = Callable[[str, int, float], None]


@click.command()
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="Measure only this; repeatable.")
@click.option("--repeats", default=3, show_default=True, help="How often everything is measured.")
@json_option
@mlflow_option
def main(parts: tuple[str, ...], repeats: int, file: Path | None, to_mlflow: bool) -> None:
    """Measure trials, log calls, flow runs and requests per unit of time."""
    measures = {"trials": _trials, "mlflow": _mlflow, "prefect": _prefect, "serve": _serve}
    results: dict[str, dict[str, list[float]]] = {}

    def note(what: str, count: int, value: float) -> None:
        click.echo(f"{what} {count}: {value:,.1f}", err=True)
        results.setdefault(what, {}).setdefault(str(count), []).append(value)

    with tempfile.TemporaryDirectory() as folder, environment({STATE_VARIABLE: f"{folder}/state"}):
        for part in parts or PARTS:
            with ExitStack() as servers:
                measures[part](Path(folder), repeats, servers, note)
    rows: list[tuple[str, ...]] = [("", "of", "median", "lowest", "highest", "times the first")]
    for name, rates in results.items():
        first = median(next(iter(rates.values())))
        for count, values in rates.items():
            shown = [f"{value:,.1f}" for value in (median(values), min(values), max(values))]
            rows.append((name, count, *shown, f"{median(values) / first:.2f}"))
    click.echo(table(rows))
    publish("capacity", results, file, to_mlflow=to_mlflow)


def _trials(_: Path, repeats: int, servers: ExitStack, note: Note) -> None:
    """What workers of a study do together, and how many connections they have."""
    url, database = servers.enter_context(postgres("optuna"))
    for repeat in range(repeats):
        for count in WORKERS:
            name = _study(url, TRIALS, seed=10_000 * (repeat + 1) + count).name
            cost = cost_of([partial(_worker, url, name)] * count, database, partial(connections, url))
            _note_cost(note, "trials, workers", count, TRIALS, cost)
            note("connections to PostgreSQL, workers", count, cost.most)


def _study(url: str, trials: int, seed: int) -> TuningStudy:
    overrides = (f"tune.trials={trials}", f"tune.space={RATE_ALONE}", f"seeds=[{seed}]")
    settings = settings_of(merged_params(PROJECT, "demo", overrides))
    return open_study(open_storage(url), settings, "vit", synthetic_info(settings, 10))


def _worker(url: str, name: str) -> Callable[[], object]:
    study = load_study(open_storage(url), name)
    return partial(work, study, lambda _: 1.0)


def _mlflow(folder: Path, repeats: int, servers: ExitStack, note: Note) -> None:
    """Calls per second: `log_metric` of MLflow's client, and the same through outboxes, each delivered by a process."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    variables = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_TRACKING_URI": url}
    database, _ = servers.enter_context(postgres("mlflow"))
    servers.enter_context(environment(variables | {"MLFLOW_BACKEND_STORE_URI": database}))
    command = ["mlflow", "server", "--port", str(port), "--workers", "2", "--artifacts-destination", str(folder / "a")]
    pid = servers.enter_context(server(command, f"{url}/health", folder / "mlflow.log"))
    for _repeat in range(repeats):
        for count in CLIENTS:
            outboxes = [folder / uuid.uuid4().hex for _ in range(count)]
            asked: dict[str, list[Client]] = {
                "log calls to the server, clients": [_log_to_the_server] * count,
                "log calls into outboxes, clients": [partial(_log_into_an_outbox, outbox) for outbox in outboxes],
                "log calls delivered, outboxes": [partial(_deliver, outbox) for outbox in outboxes],
            }
            for what, clients in asked.items():
                _note_cost(note, what, count, count * CALLS, cost_of(clients, pid))


def _log_to_the_server() -> Callable[[], object]:
    from vit_vs_cnn.tracking.store import experiment, open_client

    client = open_client()
    run = client.create_run(experiment(client, "capacity").experiment_id).info.run_id
    return lambda: [client.log_metric(run, "loss", 0.5, step=step) for step in range(CALLS)]


def _log_into_an_outbox(state: Path) -> Callable[[], object]:
    from vit_vs_cnn.tracking.outbox import Header, open_outbox
    from vit_vs_cnn.tracking.run import TrackedRun

    os.environ[STATE_VARIABLE] = str(state)
    header = Header(key=state.name, experiment="capacity", name="capacity", creates_run=True, deferred=True)
    run = TrackedRun(open_outbox(state.name, header))

    def log() -> None:
        for step in range(CALLS):
            run.log_metrics({"loss": 0.5}, step)

    return log


def _deliver(state: Path) -> Callable[[], object]:
    from vit_vs_cnn.tracking.delivery import sync

    os.environ[STATE_VARIABLE] = str(state)
    return sync


def _prefect(folder: Path, repeats: int, servers: ExitStack, note: Note) -> None:
    """Flow runs per minute: of processes that each go on with the next, and of a worker that starts one for each."""
    database, _ = servers.enter_context(postgres("prefect"))
    port = free_port()
    own = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    own |= {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database.replace("psycopg2", "asyncpg"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    quick = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_LOGGING_LEVEL": "WARNING"}
    servers.enter_context(environment(own | quick))
    command = ["prefect", "server", "start", "--port", str(port)]
    pid = servers.enter_context(server(command, f"http://127.0.0.1:{port}/api/health", folder / "prefect.log"))
    create = ["prefect", "work-pool", "create", "pool", "--type", "process"]
    for command in (create, [sys.executable, "-c", DEPLOY]):
        subprocess.run(command, check=True, capture_output=True)
    for _repeat in range(repeats):
        for count in AT_ONCE:
            cost = cost_of([_flow_runs] * count, pid)
            _note_cost(note, "flow runs, processes", count, count * FLOW_RUNS, cost)
            note("flow runs/min of a worker, at once", count, 60 * FLOW_RUNS / _seconds_of_a_worker(folder, count))


def _flow_runs() -> Callable[[], object]:
    command = [sys.executable, str(PROJECT / "benchmarks/empty_flow.py"), str(FLOW_RUNS)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return lambda: process.communicate("go\n")


def _seconds_of_a_worker(folder: Path, at_once: int) -> float:
    """Seconds from the first start to the last end of runs that a worker finds."""
    from vit_vs_cnn.orchestration.prefect_server import client_at

    with client_at(os.environ["PREFECT_API_URL"]) as client:
        deployment = client.read_deployment_by_name("empty/empty").id
        ids = [client.create_flow_run_from_deployment(deployment).id for _ in range(FLOW_RUNS)]
        command = ["prefect", "worker", "start", "--pool", "pool", "--limit", str(at_once)]
        worker = start_logged(command, os.environ, folder / "worker.log")
        try:
            while not all(client.read_flow_run(each).end_time for each in ids):
                time.sleep(0.5)
        finally:
            stop_tree(worker)
        runs = [client.read_flow_run(each) for each in ids]
    first = min(run.start_time for run in runs if run.start_time)
    return (max(run.end_time for run in runs if run.end_time) - first).total_seconds()


def _serve(folder: Path, repeats: int, servers: ExitStack, note: Note) -> None:
    """Requests per second, with eight connections for each process."""
    variables = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/serve.db", "VIT_VS_CNN_SIGNING_KEY": f"{folder}/key"}
    servers.enter_context(environment(variables))
    register_untrained(PROJECT, "capacity", folder / "model")
    load = [sys.executable, str(PROJECT / "benchmarks/serving_load.py"), "--seconds", str(LOAD_SECONDS), "--clients=8"]
    for count in SERVERS:
        with ExitStack() as running:
            ports, pids = [free_port() for _ in range(count)], list[int]()
            command = ["vit-vs-cnn", "serve", "--registry", "capacity", "--port"]
            for port in ports:
                health, log = f"http://127.0.0.1:{port}/health", folder / f"{port}.log"
                pids.append(running.enter_context(server([*command, str(port)], health, log)))
            asked = {"requests, processes of serve": (ports, pids)}
            if has_proxy():
                port, pid = running.enter_context(proxy(ports, folder))
                asked["requests, processes of serve behind one port"] = ([port] * count, [*pids, pid])
            for _repeat in range(repeats):
                for what, (addresses, processes) in asked.items():
                    before = sum(map(cpu_seconds, processes))
                    loads = [
                        subprocess.Popen([*load, f"--as-load={port}"], stdout=subprocess.PIPE) for port in addresses
                    ]
                    statuses = [json.loads(each.communicate()[0])["statuses"] for each in loads]
                    answered = sum(each.get("200", 0) for each in statuses)
                    note(f"{what}: per minute", count, 60 * answered / LOAD_SECONDS)
                    used = 1_000 * (sum(map(cpu_seconds, processes)) - before)
                    note(f"{what}: CPU ms of the server", count, used / answered)


def _note_cost(note: Note, what: str, count: int, calls: int, cost: Cost) -> None:
    """Note calls per minute, and the CPU milliseconds of a call."""
    note(f"{what}: per minute", count, 60 * calls / cost.seconds)
    note(f"{what}: CPU ms of a client", count, 1_000 * cost.clients / calls)
    note(f"{what}: CPU ms of the server", count, 1_000 * cost.server / calls)


if __name__ == "__main__":
    main()
