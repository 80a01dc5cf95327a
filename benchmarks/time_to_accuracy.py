"""How many seconds of training does a recipe need for an accuracy on validation?

    python benchmarks/time_to_accuracy.py --preset demo --accuracy 0.9 --accuracy 0.95 --seeds 3
    python benchmarks/time_to_accuracy.py --preset cpu --set data.source=folder --set data.path=… --contestant resnet
    python benchmarks/time_to_accuracy.py --preset airbench94 --contestant resnet --seeds 1

The last one is the yardstick: airbench94, whose authors reached 94 % in eight epochs.

Prepares the data of a preset in a temporary folder and trains every contestant with several seeds, as the pipeline
would but untracked. The seeds are the outer loop, so that the contestants take turns. Counted are the training and the
validation of all epochs up to the first one that reached the accuracy; the schedule is the recipe's own, so a recipe
made for a long training is not at its best in its first epochs.
"""

import os
import tempfile
import uuid
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import click

from record import json_option, mlflow_option, publish
from vit_vs_cnn.config import Settings, merge, parse_settings
from vit_vs_cnn.data.prepare import prepare
from vit_vs_cnn.data.prepared import DatasetInfo, read_split
from vit_vs_cnn.layout import project_root
from vit_vs_cnn.params import merged_params, settings_of
from vit_vs_cnn.table import aligned
from vit_vs_cnn.training.checkpoint import Checkpoints
from vit_vs_cnn.training.contestant import prepare_contestant, train_contestant
from vit_vs_cnn.training.outputs import Epoch

ACCURACIES = (0.80, 0.85, 0.90, 0.93, 0.94)


@click.command()
@click.option("--preset", help="A preset; default: params.yaml as it is.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable.")
@click.option("--contestant", "names", multiple=True, help="Only this one; repeatable. Default: all of the preset.")
@click.option("--accuracy", "accuracies", default=ACCURACIES, multiple=True, show_default=True, help="Repeatable.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="How many seeds, from 0.")
@json_option
@mlflow_option
def main(
    preset: str | None,
    overrides: tuple[str, ...],
    names: tuple[str, ...],
    accuracies: tuple[float, ...],
    seeds: int,
    file: Path | None,
    to_mlflow: bool,
) -> None:
    """Measure the seconds to given validation accuracies for every contestant of a preset."""
    target = file.resolve() if file else None
    os.chdir(project_root())
    settings = settings_of(merged_params(Path(), preset, overrides))
    histories: dict[str, list[list[Epoch]]] = {name: [] for name in names or settings.models}
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared"
        info = prepare(settings.data, prepared).info
        for seed in range(seeds):
            seeded = parse_settings(merge(settings.model_dump(), {"seed": seed}))
            for name, runs in histories.items():
                history = _train(seeded, name, info, prepared)
                best = max(epoch.val_accuracy for epoch in history)
                click.echo(f"{name} seed {seed}: {best:.2%} at best, {history[-1].elapsed_seconds:,.1f} s", err=True)
                runs.append(history)
    rows = [_row(name, accuracy, runs) for name, runs in histories.items() for accuracy in accuracies]
    click.echo(aligned([("contestant", "accuracy", "reached", "seconds", "lowest", "highest"), *rows]))
    for name, runs in histories.items():
        best_of = [max(epoch.val_accuracy for epoch in history) for history in runs]
        spread = f" ± {stdev(best_of):.2%}" if seeds > 1 else ""
        seconds = median(history[-1].elapsed_seconds for history in runs)
        click.echo(f"{name}: best epoch {mean(best_of):.2%}{spread}, all epochs {seconds:,.1f} s")
    publish("time_to_accuracy", _figures(histories, accuracies), target, to_mlflow=to_mlflow)


def _train(settings: Settings, name: str, info: DatasetInfo, prepared: Path) -> list[Epoch]:
    ready = prepare_contestant(settings, name, info)
    checkpoints = Checkpoints(f"benchmark-accuracy-{uuid.uuid4().hex}")
    splits = (read_split(prepared, "train"), read_split(prepared, "val"))
    _, result, _ = train_contestant(settings, name, info, splits, ready, checkpoints, lambda _: None, quiet=True)
    checkpoints.remove()
    return result.history


def _seconds_to(accuracy: float, history: list[Epoch]) -> float | None:
    return next((epoch.elapsed_seconds for epoch in history if epoch.val_accuracy >= accuracy), None)


def _reached(accuracy: float, runs: list[list[Epoch]]) -> list[float]:
    seconds = (_seconds_to(accuracy, history) for history in runs)
    return [each for each in seconds if each is not None]


def _row(name: str, accuracy: float, runs: list[list[Epoch]]) -> tuple[str, ...]:
    seconds = _reached(accuracy, runs)
    shown = [f"{each:,.1f}" for each in (median(seconds), min(seconds), max(seconds))] if seconds else ["–"] * 3
    return (name, f"{accuracy:.1%}", f"{len(seconds)} of {len(runs)}", *shown)


def _figures(histories: dict[str, list[list[Epoch]]], accuracies: tuple[float, ...]) -> dict[str, Any]:
    return {
        name: {
            "val_accuracy": [max(epoch.val_accuracy for epoch in history) for history in runs],
            "seconds": [history[-1].elapsed_seconds for history in runs],
            **{f"seconds_to_{accuracy:g}": _reached(accuracy, runs) for accuracy in accuracies},
        }
        for name, runs in histories.items()
    }


if __name__ == "__main__":
    main()
