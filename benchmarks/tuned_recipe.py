"""Is the recipe that a search found better than the one it started from, on test, with other seeds?

    vit-vs-cnn run --preset cpu --set tune.trials=20 --name tuned --stage prepare --stage tune
    python benchmarks/tuned_recipe.py runs/tuned --seeds 3

Trains every contestant of a run with both recipes and several seeds, exactly as the pipeline would, and evaluates each
training on the test images. The search itself has seen the validation images of the first seed only.
"""

import json
import math
import os
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click
import numpy as np
from scipy.stats import t

from vit_vs_cnn.config.load import changed, read_settings, with_tuned
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PARAMS, PREPARED
from vit_vs_cnn.data.dataset import DatasetInfo, read_info, read_split
from vit_vs_cnn.evaluation.metrics import accuracy_interval
from vit_vs_cnn.evaluation.predict import batch_predict
from vit_vs_cnn.training.checkpoint import fingerprint, open_checkpoint
from vit_vs_cnn.training.contestant import prepare_contestant, train_contestant
from vit_vs_cnn.tuning.summary import read_tuning_summary

Measurement = dict[str, Any]
RECIPES = ("untuned", "tuned")


@click.command()
@click.argument("project", type=click.Path(path_type=Path, exists=True))
@click.option("--seeds", default=3, type=click.IntRange(2), help="How many seeds, from 0.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the measurements here too.")
def main(project: Path, seeds: int, file: Path | None) -> None:
    """Compare the tuned with the untuned recipe of every contestant of the run in PROJECT."""
    target = file.resolve() if file else None
    os.chdir(project)
    settings, info = read_settings(PARAMS), read_info(PREPARED)
    measurements = []
    for contestant in settings.models:
        search = read_tuning_summary(contestant)
        if search.recipe_val_accuracy is None or search.best_val_accuracy is None:
            raise click.UsageError(f"{project}: {contestant} was not tuned there.")
        cost = f"{search.trials} trials, {search.pruned} pruned, {search.seconds:,.0f} s of training"
        found = f"validation {search.recipe_val_accuracy:.2%} → {search.best_val_accuracy:.2%}"
        click.echo(f"{contestant}: the search took {cost}: {found}")
        rows = [_measure(settings, contestant, info, seed, recipe) for seed in range(seeds) for recipe in RECIPES]
        for measure in ("val_accuracy", "test_accuracy"):
            click.echo(f"  {measure}: {_describe_gain(rows, measure)}")
        measurements += rows
    if target:
        target.write_text(json.dumps(measurements, indent=2) + "\n")


def _measure(settings: Settings, contestant: str, info: DatasetInfo, seed: int, recipe: str) -> Measurement:
    base = with_tuned(settings, contestant) if recipe == "tuned" else settings
    result = _train(changed(base, {"seeds": [seed]}), contestant, info)
    low, high = accuracy_interval(result["hits"], result["images"], settings.evaluate.confidence)
    click.echo(
        f"  seed {seed}  {recipe:<7}  validation {result['val_accuracy']:.2%}  test {result['test_accuracy']:.2%} "
        f"({low:.2%} to {high:.2%})  {result['seconds']:,.0f} s"
    )
    return {"contestant": contestant, "seed": seed, "recipe": recipe, **result}


def _describe_gain(rows: list[Measurement], measure: str) -> str:
    """Means of both recipes, and the mean gain with Student's interval over the seeds."""
    before, after = ([row[measure] for row in rows if row["recipe"] == recipe] for recipe in RECIPES)
    gains = [tuned - untuned for untuned, tuned in zip(before, after, strict=True)]
    half = t.ppf(0.975, len(gains) - 1) * stdev(gains) / math.sqrt(len(gains))
    return (
        f"untuned {mean(before):.2%}, tuned {mean(after):.2%}, gain {100 * mean(gains):+.2f} points "
        f"(95 % interval over the seeds {100 * (mean(gains) - half):+.2f} to {100 * (mean(gains) + half):+.2f})"
    )


def _train(settings: Settings, contestant: str, info: DatasetInfo) -> Measurement:
    splits = (read_split(PREPARED, "train"), read_split(PREPARED, "val"))
    job = prepare_contestant(settings, contestant, info, splits, quiet=True)
    with open_checkpoint(fingerprint(job)) as checkpoint:
        training = train_contestant(job, checkpoint, lambda _: None)
    test, summary, device = read_split(PREPARED, "test"), training.summary, job.plan.device
    network = training.model.to(device)
    probabilities = batch_predict(network.probabilities, test.images, settings.evaluate.batch_size, device)
    hits = int((np.asarray(probabilities).argmax(axis=1) == test.labels).sum())
    return {
        "val_accuracy": summary.val_accuracy,
        "test_accuracy": hits / len(test),
        "hits": hits,
        "images": len(test),
        "seconds": summary.seconds,
    }


if __name__ == "__main__":
    main()
