"""How many seconds of training does a recipe need for an accuracy on validation, and how accurate is it in the end?

    python benchmarks/time_to_accuracy.py --preset demo --accuracy 0.9 --accuracy 0.95 --seeds 3
    python benchmarks/time_to_accuracy.py --preset cpu --set data.source=folder --set data.path=… --contestant resnet
    python benchmarks/time_to_accuracy.py --preset airbench94 --contestant airbench --seeds 1

The last one is the yardstick: airbench94, whose authors reached 94 % in eight epochs.

Prepares the data of a preset in a temporary folder and trains every contestant with several seeds, as the pipeline
would but untracked: it needs neither MLflow nor DVC, Prefect or Optuna. The seeds are the outer loop, so that the
contestants take turns. Counted are the training and the validation after each epoch. The weights of the best epoch by
validation then predict the test images, as the pipeline's evaluation does, and once more with their mirror images.

What was killed is continued by the same command: a training after its last epoch (its seconds are those of its
epochs), and with --json no finished training is repeated: its figures wait in a file beside the output.
"""

import os
import tempfile
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import click

from record import Draft, json_option, mlflow_option, publish
from vit_vs_cnn.config.load import changed, merged_params, settings_of
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import table
from vit_vs_cnn.core.paths import project_root
from vit_vs_cnn.core.records import Record, digest_of
from vit_vs_cnn.data.dataset import DatasetInfo, Split, read_split
from vit_vs_cnn.data.prepare import prepare
from vit_vs_cnn.evaluation.metrics import accuracy_interval
from vit_vs_cnn.evaluation.predict import batch_predict
from vit_vs_cnn.evaluation.views import mirrored
from vit_vs_cnn.training.checkpoint import fingerprint, open_checkpoint
from vit_vs_cnn.training.contestant import FinishedTraining, prepare_contestant, train_contestant
from vit_vs_cnn.training.results import Epoch
from vit_vs_cnn.training.setup import TrainingJob

ACCURACIES = (0.80, 0.85, 0.90, 0.93, 0.94)


class Training(Record):
    """One training: its epochs, and what its best weights reach on the test split, with their interval.

    `flip_accuracy` is reached by the mean answer to an image and its mirror image.
    """

    history: list[Epoch]
    test_accuracy: float
    test_interval: tuple[float, float]
    flip_accuracy: float

    @property
    def val_accuracy(self) -> float:
        """Of the best epoch."""
        return max(epoch.val_accuracy for epoch in self.history)

    @property
    def seconds(self) -> float:
        """Of all epochs."""
        return self.history[-1].elapsed_seconds

    def seconds_to(self, accuracy: float) -> float | None:
        """Until validation came so far, None if it never did."""
        return next((epoch.elapsed_seconds for epoch in self.history if epoch.val_accuracy >= accuracy), None)


@click.command()
@click.option("--preset", help="A preset; default: params.yaml as it is.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable.")
@click.option("--contestant", "names", multiple=True, help="Only this one; repeatable. Default: all of the preset.")
@click.option("--accuracy", "accuracies", default=ACCURACIES, multiple=True, show_default=True, help="Repeatable.")
@click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(1), help="How many, from the setting `seed` on."
)
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
    trainings: dict[str, list[Training]] = {name: [] for name in names or settings.models}
    draft = Draft(target)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared"
        info, _ = prepare(settings.data, prepared)
        for seed in range(settings.seed, settings.seed + seeds):
            seeded = changed(settings, {"seeds": [seed]})
            for name, runs in trainings.items():
                runs.append(_train(seeded, name, info, prepared, draft))
                click.echo(_line(name, seed, runs[-1]), err=True)
    rows = [_row(name, accuracy, runs) for name, runs in trainings.items() for accuracy in accuracies]
    click.echo(table([("contestant", "accuracy", "reached", "seconds", "lowest", "highest"), *rows]))
    for name, runs in trainings.items():
        validation, test, flip = (
            _mean([getattr(run, of) for run in runs]) for of in ("val_accuracy", "test_accuracy", "flip_accuracy")
        )
        seconds = median(run.seconds for run in runs)
        click.echo(f"{name}: validation {validation}, test {test}, flip {flip}, all epochs {seconds:,.1f} s")
    publish("time_to_accuracy", _figures(trainings, accuracies), target, to_mlflow=to_mlflow)
    draft.remove()


def _train(settings: Settings, name: str, info: DatasetInfo, prepared: Path, draft: Draft) -> Training:
    splits = (read_split(prepared, "train"), read_split(prepared, "val"))
    job = prepare_contestant(settings, name, info, splits)
    same = digest_of(f"{settings.model_dump_json()}{info.digest}{fingerprint(job)}".encode())
    key = f"{name} {settings.seed} {same}"
    if finished := draft.get(key):
        click.echo(f"{name} seed {settings.seed}: was finished before", err=True)
        return Training.model_validate(finished)
    with open_checkpoint(f"benchmark-{fingerprint(job)}") as checkpoint:
        # The checkpoint is there until the figures are.
        training = _tested(train_contestant(job, checkpoint, lambda _: None), job, read_split(prepared, "test"))
        draft.add(key, training.model_dump())
    return training


def _tested(finished: FinishedTraining, job: TrainingJob, test: Split) -> Training:
    device, options = job.plan.device, job.settings.evaluate
    network = finished.model.to(device)
    right, flipped = (
        int((batch_predict(call, test.images, options.batch_size, device).argmax(axis=1) == test.labels).sum())
        for call in (network.logits, mirrored(network.logits))
    )
    return Training(
        history=finished.history,
        test_accuracy=right / len(test),
        test_interval=accuracy_interval(right, len(test), options.confidence),
        flip_accuracy=flipped / len(test),
    )


def _line(name: str, seed: int, training: Training) -> str:
    low, high = training.test_interval
    return (
        f"{name} seed {seed}: validation {training.val_accuracy:.2%} at best, "
        f"test {training.test_accuracy:.2%} ({low:.2%} to {high:.2%}), flip {training.flip_accuracy:.2%}, "
        f"{training.seconds:,.1f} s"
    )


def _mean(values: list[float]) -> str:
    return f"{mean(values):.2%}" + (f" ± {stdev(values):.2%}" if len(values) > 1 else "")


def _reached(accuracy: float, runs: list[Training]) -> list[float]:
    seconds = (run.seconds_to(accuracy) for run in runs)
    return [value for value in seconds if value is not None]


def _row(name: str, accuracy: float, runs: list[Training]) -> tuple[str, ...]:
    seconds = _reached(accuracy, runs)
    shown = [f"{value:,.1f}" for value in (median(seconds), min(seconds), max(seconds))] if seconds else ["–"] * 3
    return (name, f"{accuracy:.1%}", f"{len(seconds)} of {len(runs)}", *shown)


def _figures(trainings: dict[str, list[Training]], accuracies: tuple[float, ...]) -> dict[str, Any]:
    return {
        name: {
            "val_accuracy": [run.val_accuracy for run in runs],
            "test_accuracy": [run.test_accuracy for run in runs],
            "flip_accuracy": [run.flip_accuracy for run in runs],
            "seconds": [run.seconds for run in runs],
            **{f"seconds_to_{accuracy:g}": _reached(accuracy, runs) for accuracy in accuracies},
        }
        for name, runs in trainings.items()
    }


if __name__ == "__main__":
    main()
