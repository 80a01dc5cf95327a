"""What do tracking, DVC and Prefect cost, beside the training?

    python benchmarks/overhead.py --repeats 3

Runs the demo preset in a clone of this project's commit: the training of all contestants alone, in one process and
untracked; then the stages of the pipeline as commands, one after the other; then by `dvc repro`; then by
`vit-vs-cnn run`, which is Prefect and DVC in an isolated workspace. They take turns, always from an empty cache, and
the median of the repeats counts. Then how long it takes to find that nothing is to be done, and `--help`. What the
tracking costs an epoch is in benchmarks/throughput.py.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import click

from record import json_option, mlflow_option, publish

COMMAND = [sys.executable, "-c", "from vit_vs_cnn.cli import main; main()"]
DVC = [sys.executable, "-m", "dvc"]
OUTPUTS = ("data/prepared", "reports", "tuned", "trained", "evaluated", "robustness", "cost", "registered")
FOREIGN = ("MLFLOW_", "PREFECT_", "VIT_VS_CNN")


@click.command()
@click.option("--repeats", default=3, show_default=True, help="How often every way is measured.")
@json_option
@mlflow_option
@click.option("--as-training", is_flag=True, hidden=True, help="Only prepare and train, in the working directory.")
def main(repeats: int, file: Path | None, to_mlflow: bool, as_training: bool) -> None:
    """Measure the wall time of the training alone, of the pipeline in three ways, and of having nothing to do."""
    if as_training:
        _train_alone()
        return
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "project"
        _call(["git", "clone", "--quiet", str(Path(__file__).parent.parent), str(clone)], Path(folder))
        (clone / "params.yaml").write_text(_call([*COMMAND, "params", "--preset", "demo"], clone))
        _call(["git", "-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "-qam", "demo"], clone)
        stages = [name.split("@") for name in _call([*DVC, "stage", "list", "--name-only"], clone).split()]
        ways: dict[str, Callable[[], object]] = {
            "training alone": lambda: _call([sys.executable, __file__, "--as-training"], clone),
            "stages by themselves": lambda: [_call([*COMMAND, *stage], clone) for stage in stages],
            "dvc repro": lambda: _call([*DVC, "repro"], clone),
            "vit-vs-cnn run": lambda: _call([*COMMAND, "run", "--name", "demo"], clone),
        }
        nothing = {
            "dvc repro, nothing to do": [*DVC, "repro"],
            "vit-vs-cnn run, nothing to do": [*COMMAND, "run", "--name", "demo"],
            "vit-vs-cnn --help": [*COMMAND, "--help"],
        }
        for _ in range(repeats):
            for name, way in ways.items():
                _forget(clone)
                seconds.setdefault(name, []).append(_timed(way))
                if name == "dvc repro":
                    _time_nothing(nothing, "dvc repro, nothing to do", clone, seconds)
            _time_nothing(nothing, "vit-vs-cnn run, nothing to do", clone, seconds)
            _time_nothing(nothing, "vit-vs-cnn --help", clone, seconds)
    alone = median(seconds["stages by themselves"])
    click.echo("                                seconds   lowest  highest     more than the stages")
    for name, times in seconds.items():
        more = f"{median(times) - alone:+.1f} s" if name in ways else ""
        click.echo(f"{name:<30}  {median(times):>7.2f}  {min(times):>7.2f}  {max(times):>7.2f}  {more:>23}")
    publish("overhead", seconds, file, to_mlflow=to_mlflow)


def _train_alone() -> None:
    # Only here: the other ways import it in separate processes.
    from vit_vs_cnn.config.load import read_settings
    from vit_vs_cnn.core.paths import PARAMS, PREPARED
    from vit_vs_cnn.data.dataset import read_split
    from vit_vs_cnn.data.prepare import prepare
    from vit_vs_cnn.training.checkpoint import open_checkpoint
    from vit_vs_cnn.training.contestant import prepare_contestant, train_contestant

    settings = read_settings(PARAMS)
    info, _ = prepare(settings.data, PREPARED)
    splits = read_split(PREPARED, "train"), read_split(PREPARED, "val")
    for name in settings.models:
        job = prepare_contestant(settings, name, info, splits, quiet=True)
        with open_checkpoint(f"benchmark-overhead-{name}") as checkpoint:
            train_contestant(job, checkpoint, lambda _: None)


def _time_nothing(commands: dict[str, list[str]], name: str, clone: Path, seconds: dict[str, list[float]]) -> None:
    seconds.setdefault(name, []).append(_timed(lambda: _call(commands[name], clone)))


def _timed(way: Callable[[], object]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def _forget(clone: Path) -> None:
    """Bring the clone back to where nothing has run; the databases stay, as they are made once in a project's life."""
    for name in ("runs", ".dvc/cache", ".dvc/tmp", *OUTPUTS):
        shutil.rmtree(clone / name, ignore_errors=True)
    (clone / "dvc.lock").unlink(missing_ok=True)
    _call(["git", "worktree", "prune"], clone)


def _call(command: Sequence[str], folder: Path) -> str:
    scripts = str(Path(sys.executable).parent)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    environment = kept | {"PATH": f"{scripts}{os.pathsep}{kept['PATH']}"}
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        sys.exit(f"`{' '.join(command)}` failed: {answer.stdout}{answer.stderr}")
    return answer.stdout


if __name__ == "__main__":
    main()
