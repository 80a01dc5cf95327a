"""How many more trials a minute do several workers of a study finish than one?

    python benchmarks/tuning_workers.py --workers 1 --workers 4 --trials 40 --seconds 1 --repeats 3
    OPTUNA_STORAGE=postgresql+psycopg2://… python benchmarks/tuning_workers.py

The trials train nothing: each sleeps, in four epochs that it reports, so that what is measured is the study itself
(lock, draws, reports, heartbeats) and not the processor. The numbers of workers take turns, and the median of the
repeats counts. Measured is from the moment the last worker has begun its first trial to the end of the last trial.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import click
from optuna.trial import FrozenTrial, Trial, TrialState

from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import STORAGE_VARIABLE
from vit_vs_cnn.data.dataset import DatasetInfo, SplitInfo
from vit_vs_cnn.tuning.storage import open_storage
from vit_vs_cnn.tuning.study import load_study, open_study
from vit_vs_cnn.tuning.worker import work

EPOCHS = 4


@click.command()
@click.option("--workers", default=(1, 2, 4), multiple=True, help="A number of workers to measure; repeatable.")
@click.option("--trials", default=40, help="Trials of each study.")
@click.option("--seconds", default=1.0, help="How long a trial sleeps.")
@click.option("--repeats", default=3, help="How often each number of workers is measured.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the measurements here too.")
@click.option("--as-worker", hidden=True, help="Be a worker of this study.")
def main(
    workers: tuple[int, ...], trials: int, seconds: float, repeats: int, file: Path | None, as_worker: str | None
) -> None:
    """Measure trials per minute for each number of workers, on OPTUNA_STORAGE or on a temporary SQLite file."""
    if as_worker:
        tuning = load_study(open_storage(os.environ[STORAGE_VARIABLE]), as_worker)
        work(tuning, partial(_sleep, seconds))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault(STORAGE_VARIABLE, f"sqlite:///{folder}/studies.db")
        rates: dict[int, list[float]] = {count: [] for count in workers}
        for repeat in range(repeats):
            for count in workers:
                rates[count].append(_measure(count, trials, seconds, seed=repeat * 1000 + count + os.getpid()))
    base = median(rates[workers[0]])
    click.echo(f"workers  trials/min   lowest  highest  times that of {workers[0]}")
    for count, repeated in rates.items():
        middle = median(repeated)
        click.echo(f"{count:>7}  {middle:>10.1f}  {min(repeated):>7.1f}  {max(repeated):>7.1f}  {middle / base:>15.2f}")
    if file:
        file.write_text(json.dumps({"seconds": seconds, "trials": trials, "trials_per_minute": rates}, indent=2) + "\n")


def _measure(count: int, trials: int, seconds: float, seed: int) -> float:
    """Trials per minute of one study. Exits where it did not end with exactly its budget."""
    tuning = open_study(open_storage(os.environ[STORAGE_VARIABLE]), _settings(trials, seed), "sleeper", _info())
    command = [sys.executable, __file__, "--as-worker", tuning.name, "--seconds", str(seconds)]
    processes = [subprocess.Popen(command) for _ in range(count)]
    codes = [process.wait() for process in processes]
    finished = tuning.study.get_trials()
    if any(codes) or len(finished) != trials or any(trial.state != TrialState.COMPLETE for trial in finished):
        sys.exit(f"{count} workers: exit codes {codes}, states {[trial.state.name for trial in finished]}")
    first: dict[str, float] = {}
    for trial in sorted(finished, key=_start):
        first.setdefault(trial.user_attrs["worker"], _start(trial))
    begin, end = max(first.values()), max(_end(trial) for trial in finished)
    return 60 * sum(_part_after(begin, trial) for trial in finished) / (end - begin)


def _part_after(begin: float, trial: FrozenTrial) -> float:
    """The part of a trial, from 0 to 1, that lies after `begin`."""
    return max(0.0, _end(trial) - max(begin, _start(trial))) / (_end(trial) - _start(trial))


def _sleep(seconds: float, trial: Trial) -> float:
    for epoch in range(1, EPOCHS + 1):
        time.sleep(seconds / EPOCHS)
        trial.report(epoch / EPOCHS, epoch)
        trial.should_prune()
    return 1.0


def _start(trial: FrozenTrial) -> float:
    assert trial.datetime_start is not None
    return trial.datetime_start.timestamp()


def _end(trial: FrozenTrial) -> float:
    assert trial.datetime_complete is not None
    return trial.datetime_complete.timestamp()


def _settings(trials: int, seed: int) -> Settings:
    rate = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}
    return parse_settings(
        {
            "seeds": [seed],
            "data": {"source": "digits", "name": "sleep", "path": "nothing"},
            "recipe": {},
            "train": {"epochs": EPOCHS},
            "tune": {"trials": trials, "space": {"optimizer": {"lr": rate}}, "pruner": {"name": "NopPruner"}},
            "evaluate": {},
            "explain": {},
            "models": {"sleeper": {"timm": "nothing"}},
        }
    )


def _info() -> DatasetInfo:
    split = SplitInfo(images=2, counts=(1, 1), digest="nothing")
    return DatasetInfo(
        name="sleep", source="digits", description="nothing", classes=("a", "b"), image_size=32, split_seed=0,
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), splits={"train": split, "val": split}, digest="nothing",
    )  # fmt: skip


if __name__ == "__main__":
    main()
