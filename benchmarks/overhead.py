"""What does all that surrounds the training cost, and does it stay within its targets?

    python benchmarks/overhead.py --repeats 5
    python benchmarks/overhead.py --only-stages --repeats 1 --preset cpu --set train.epochs=1

Works in a clone of this project's commit, on the demo preset unless --preset names another one. In turns: `vit-vs-cnn
run` from nothing, as after `make setup`; the same again, when nothing is to be done; the commands that people wait for;
`vit-vs-cnn up`, how long until it is ready and what it needs while nothing happens; every stage as a command of its
own, from an empty cache; and `dvc repro` with nothing to do. CPU seconds are those of the whole process tree, user and
system. The medians of the repeats count.

Of every stage it says in CPU seconds when its own work begins, and what it imports after that (stage_start.py).
`--only-stages` measures the stages alone, and as in a run they leave the delivery of their records to another process:
here to `register`. `--setup` measures `make setup` in the clone as well, with the caches of uv and pip as they are and
with empty ones; `--tests` measures `make test-fast` and `make test`. What the tracking costs an epoch is in
throughput.py.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import click
import psutil

from record import json_option, mlflow_option, publish
from vit_vs_cnn.core.console import table
from vit_vs_cnn.tracking.delivery import DEFERRED_VARIABLE

COMMAND = [str(Path(sys.executable).with_name("vit-vs-cnn"))]
DVC = [sys.executable, "-m", "dvc"]
RUN = [*COMMAND, "run", "--preset", "demo", "--name", "demo"]
STAGE = [sys.executable, str(Path(__file__).with_name("stage_start.py"))]
STARTED = re.compile(r"(start-up|imports later) ([\d.]+) s")
WITHOUT_TORCH = {"prepare", "eda", "tune", "register"}
BESIDE_TRAINING = {"prepare", "eda", "evaluate", "explain", "compare", "register"}
OUTPUTS = ("data/prepared", "reports", "tuned", "trained", "evaluated", "robustness", "cost", "registered")
FOREIGN = ("MLFLOW_", "PREFECT_", "VIT_VS_CNN")
# On two idle cores. Of the demo for the twelve stages that there were at first, and CPU seconds for each since.
FIRST_STAGES, CPU_PER_STAGE = 12, 3.0
TARGETS = {
    ("vit-vs-cnn run", "wall"): 60.0,
    ("vit-vs-cnn run", "CPU"): 90.0,
    ("vit-vs-cnn run again", "wall"): 4.0,
    ("dvc repro, nothing to do", "wall"): 1.0,
    ("vit-vs-cnn run over its stages", "wall"): 10.0,
    ("up, ready", "wall"): 10.0,
    ("up, idle, % of a core", "CPU"): 3.0,
    ("up, MB", "memory"): 700.0,
    ("start-up, the slowest without torch", "CPU"): 1.5,
    ("start-up, the slowest with torch", "CPU"): 3.0,
    ("CIFAR-10, beside its training", "wall"): 180.0,
    ("make setup", "wall"): 60.0,
    ("make setup, nothing cached", "wall"): 120.0,
    ("make test-fast", "wall"): 60.0,
    ("make test", "wall"): 360.0,
}
PORTS = ("--prefect-port", "4299", "--mlflow-port", "5099", "--worker-port", "8199", "--optuna-port", "8198")
IDLE_SECONDS = 60.0
# What the command of each service of `up` contains.
SERVICES = {"Prefect": "prefect_server", "MLflow": "mlflow", "the worker": "worker", "Optuna": "dashboard"}

Figures = dict[tuple[str, str], list[float]]


@click.command()
@click.option("--repeats", default=5, show_default=True, help="How often everything is measured.")
@click.option("--only-stages", is_flag=True, help="Measure the stages by themselves only.")
@click.option("--preset", default="demo", show_default=True, help="Of the stages.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting of the stages.")
@click.option("--setup", is_flag=True, help="Measure `make setup` as well.")
@click.option("--tests", is_flag=True, help="Measure `make test-fast` and `make test` as well.")
@json_option
@mlflow_option
def main(
    repeats: int,
    only_stages: bool,
    preset: str,
    overrides: tuple[str, ...],
    setup: bool,
    tests: bool,
    file: Path | None,
    to_mlflow: bool,
) -> None:
    """Measure wall and CPU seconds of the stages, and of all that is around them."""
    if (preset != "demo" or overrides) and not only_stages:
        raise click.UsageError("--preset and --set are for --only-stages: everything else runs the demo.")
    figures: Figures = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        clone = _clone(Path(folder) / "project")
        changes = [part for change in overrides for part in ("--set", change)]
        (clone / "params.yaml").write_text(_call([*COMMAND, "params", "--preset", preset, *changes], clone))
        _call(["git", "-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "-qam", "settings"], clone)
        stages = _call([*DVC, "stage", "list", "--name-only"], clone).split()
        for _ in range(repeats):
            if tests:
                _measure_tests(figures, Path(folder) / "tests")
            if not only_stages:
                _measure_runs(figures, clone, setup=setup)
            _measure_stages(figures, clone, stages, deferred=only_stages)
            if preset == "cpu":
                beside = [figures[name, "wall"][-1] for name in stages if _kind(name) in BESIDE_TRAINING]
                figures["CIFAR-10, beside its training", "wall"].append(sum(beside))
    click.echo(_table_of_stages(figures, stages))
    click.echo(_table_of_targets(figures, stages))
    results = {f"{name} ({what})": values for (name, what), values in figures.items()}
    publish("overhead", results, file, to_mlflow=to_mlflow)


def _measure_runs(figures: Figures, clone: Path, *, setup: bool) -> None:
    """Everything that a person waits for: the first run and the second, and the other commands."""
    if setup:
        command, bare = ["make", "setup", f"PYTHON={sys.executable}"], {"PATH": _path_without_scripts()}
        shutil.rmtree(clone / ".venv", ignore_errors=True)
        _measure(figures, "make setup", command, clone, bare)
        with tempfile.TemporaryDirectory() as cache:
            shutil.rmtree(clone / ".venv")
            empty = {"UV_CACHE_DIR": cache, "PIP_CACHE_DIR": cache}
            _measure(figures, "make setup, nothing cached", command, clone, bare | empty)
    _forget(clone, databases=True)
    _measure(figures, "vit-vs-cnn run", RUN, clone)
    _measure(figures, "vit-vs-cnn run again", RUN, clone)
    _call([sys.executable, "-c", "from PIL import Image; Image.new('RGB', (32, 32)).save('digit.png')"], clone)
    _measure(figures, "vit-vs-cnn run --dry-run", [*RUN, "--dry-run"], clone)
    for arguments in ("--help", "registry list", "doctor", "predict digit.png --model challenger"):
        _measure(figures, f"vit-vs-cnn {arguments}", [*COMMAND, *arguments.split()], clone)
    _measure_up(figures, clone)


def _measure_tests(figures: Figures, folder: Path) -> None:
    """The tests, in a clone of their own whose set-up is done."""
    clone, python = _clone(folder), f"PYTHON={sys.executable}"
    _call(["make", ".venv/.docs", python], clone)
    for name in ("test-fast", "test"):
        _measure(figures, f"make {name}", ["make", name, python], clone)
    shutil.rmtree(clone)


def _measure_stages(figures: Figures, clone: Path, stages: Sequence[str], *, deferred: bool) -> None:
    """Every stage as a command; then DVC's own look at what they left."""
    variables = {DEFERRED_VARIABLE: "1"} if deferred else {}
    _forget(clone, databases=False)
    start, before = time.perf_counter(), _cpu_of_children()
    for name in stages:
        said = _measure(figures, name, [*STAGE, *_arguments(name)], clone, variables)
        for what, seconds in STARTED.findall(said):
            figures[name, what].append(float(seconds))
    for needs, named in (("without", WITHOUT_TORCH), ("with", {_kind(name) for name in stages} - WITHOUT_TORCH)):
        slowest = max(figures[name, "start-up"][-1] for name in stages if _kind(name) in named)
        figures[f"start-up, the slowest {needs} torch", "CPU"].append(slowest)
    _note(figures, "stages by themselves", start, before)
    _call([*DVC, "commit", "--force", "--quiet"], clone)
    _measure(figures, "dvc repro, nothing to do", [*DVC, "repro"], clone)


def _measure_up(figures: Figures, clone: Path) -> None:
    """Start `vit-vs-cnn up`, wait until it says where it is, let it idle, stop it."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, "up", *PORTS],
        cwd=clone,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        if not any("Ctrl-C stops all of it" in line for line in process.stdout):
            sys.exit("`vit-vs-cnn up` ended before it was ready")
        figures["up, ready", "wall"].append(time.perf_counter() - start)
        time.sleep(10.0)  # what starts with it comes to rest
        _measure_idle(figures, psutil.Process(process.pid))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _measure_idle(figures: Figures, up: psutil.Process) -> None:
    """CPU time while nothing happens, and memory: of all, and of `up` itself and each service with what it started."""
    groups = {"itself": [up]}
    for service in up.children():
        name = next(name for name, part in SERVICES.items() if any(part in word for word in service.cmdline()))
        groups[name] = [service, *service.children(recursive=True)]
    before = {name: _cpu(group) for name, group in groups.items()}
    time.sleep(IDLE_SECONDS)
    used = {name: 100 * (_cpu(group) - before[name]) / IDLE_SECONDS for name, group in groups.items()}
    memory = {name: _memory(group) for name, group in groups.items()}
    for what, kind, values in (("idle, % of a core", "CPU", used), ("MB", "memory", memory)):
        figures[f"up, {what}", kind].append(sum(values.values()))
        for name, value in values.items():
            figures[f"up, {what}: {name}", kind].append(value)


def _cpu(processes: Sequence[psutil.Process]) -> float:
    """Their CPU seconds so far, user and system."""
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def _memory(processes: Sequence[psutil.Process]) -> float:
    """What they hold, in MB, where pages that several processes share count once."""
    return sum(one.memory_full_info().pss for one in processes) / 1e6


def _table_of_stages(figures: Figures, stages: Sequence[str]) -> str:
    shown = [name for name in (*stages, "stages by themselves") if (name, "wall") in figures]
    columns = ("wall", "CPU", "start-up", "imports later")
    rows = [
        [name, *(f"{median(values):.1f}" if (values := figures.get((name, what))) else "" for what in columns)]
        for name in shown
    ]
    return table([["stage", *(f"{what} s" for what in columns)], *rows])


def _table_of_targets(figures: Figures, stages: Sequence[str]) -> str:
    """Everything around the stages: the median with its range, beside its target where it has one."""
    if ("vit-vs-cnn run", "wall") in figures:
        over = zip(figures["vit-vs-cnn run", "wall"], figures["stages by themselves", "wall"], strict=True)
        figures["vit-vs-cnn run over its stages", "wall"] = [run - alone for run, alone in over]
    rows = [["", "", "median", "lowest", "highest", "target", ""]]
    for (name, what), values in figures.items():
        if name in stages:
            continue
        target = TARGETS.get((name, what))
        if target is not None and (name, what) == ("vit-vs-cnn run", "CPU"):
            target += CPU_PER_STAGE * (len(stages) - FIRST_STAGES)
        shown = [f"{value:.1f}" for value in (median(values), min(values), max(values))]
        verdict = "" if target is None else "met" if median(values) <= target else "missed"
        rows.append([name, what, *shown, "" if target is None else f"{target:g}", verdict])
    return "\n" + table(rows, text_columns=2)


def _clone(folder: Path) -> Path:
    _call(["git", "clone", "--quiet", str(Path(__file__).parent.parent), str(folder)], folder.parent)
    return folder


def _kind(stage: str) -> str:
    return stage.partition("@")[0]


def _arguments(stage: str) -> list[str]:
    """The arguments of the command of a stage, as dvc.yaml has them: `train@vit-0` is `train vit --seed 0`."""
    kind, suffix = _kind(stage), stage.partition("@")[2]
    contestant, _, seed = suffix.rpartition("-") if kind in {"train", "evaluate"} else (suffix, "", "")
    return [part for part in (kind, contestant, *(("--seed", seed) if seed else ())) if part]


def _measure(
    figures: Figures, name: str, command: Sequence[str], clone: Path, variables: Mapping[str, str] | None = None
) -> str:
    """Run a command with these environment variables, note what it takes, and return what it wrote to stderr."""
    start, before = time.perf_counter(), _cpu_of_children()
    written = _run(command, clone, variables or {}).stderr
    _note(figures, name, start, before)
    return written


def _note(figures: Figures, name: str, start: float, cpu_before: float) -> None:
    figures[name, "wall"].append(time.perf_counter() - start)
    figures[name, "CPU"].append(_cpu_of_children() - cpu_before)


def _cpu_of_children() -> float:
    """User and system seconds of all children of this process that have ended, with theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _forget(clone: Path, *, databases: bool) -> None:
    """Bring the clone back to where nothing has run; the databases are made once in a project's life."""
    for name in ("runs", ".dvc/cache", ".dvc/tmp", *OUTPUTS):
        shutil.rmtree(clone / name, ignore_errors=True)
    (clone / "dvc.lock").unlink(missing_ok=True)
    if databases:
        _call(["git", "clean", "-xdffq", "--exclude", ".venv"], clone)
    _call(["git", "worktree", "prune"], clone)


def _environment() -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    return kept | {"PATH": f"{scripts}{os.pathsep}{kept['PATH']}"}


def _path_without_scripts() -> str:
    """PATH as if this environment, in which there is a uv, were not there."""
    scripts = Path(sys.executable).parent
    return os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != scripts)


def _call(command: Sequence[str], folder: Path) -> str:
    return _run(command, folder, {}).stdout


def _run(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    environment = {**_environment(), **variables}
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        sys.exit(f"`{' '.join(command)}` failed: {answer.stdout}{answer.stderr}")
    return answer


if __name__ == "__main__":
    main()
