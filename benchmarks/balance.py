"""What `recipe.balance` does for a rare class: recall of each class, with 1,000, 100 and 20 training images.

    python benchmarks/balance.py --data cifar10-images.tar.gz --seeds 3

Three classes of the images in --data, the same images for every setting, and all their test images. A network of the
`cpu` preset is trained with each setting and each seed; the epoch is chosen by balanced accuracy on a validation split
of the same shares.
"""

import os
import tempfile
import uuid
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from record import json_option, publish
from vit_vs_cnn.config.load import changed, merged_params, settings_of
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import table
from vit_vs_cnn.core.paths import project_root
from vit_vs_cnn.data.dataset import DatasetInfo, Split, read_split
from vit_vs_cnn.data.prepare import prepare
from vit_vs_cnn.evaluation.predict import batch_predict
from vit_vs_cnn.training.checkpoint import open_checkpoint
from vit_vs_cnn.training.contestant import prepare_contestant, train_contestant

SIZES = (1000, 100, 20)
VAL_SHARE = 0.1
BALANCES = ("none", "weights", "sampler")


@click.command()
@click.option(
    "--data", required=True, type=click.Path(exists=True, path_type=Path), help="Folder or archive of images."
)
@click.option("--contestant", default="resnet", show_default=True, help="Of the cpu preset.")
@click.option("--epochs", default=30, show_default=True, help="Of every training.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="How many, from 0 on.")
@json_option
def main(data: Path, contestant: str, epochs: int, seeds: int, file: Path | None) -> None:
    """Measure the recall of each class by `recipe.balance`."""
    data, target = data.resolve(), file.resolve() if file else None
    os.chdir(project_root())
    source = ("data.source=folder", f"data.path={data}", "data.name=unbalanced")
    settings = settings_of(merged_params(Path(), "cpu", source))
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared"
        info, _ = prepare(settings.data, prepared)
        info = info.model_copy(update={"classes": info.classes[: len(SIZES)]})
        splits = (_cut(read_split(prepared, "train"), 1.0), _cut(read_split(prepared, "val"), VAL_SHARE))
        test = _cut(read_split(prepared, "test"), None)
        recalls = {
            balance: [_train(settings, contestant, balance, epochs, seed, info, splits, test) for seed in range(seeds)]
            for balance in BALANCES
        }
    header = ("balance", *(f"{name}, {size:,} images" for name, size in zip(info.classes, SIZES, strict=True)), "mean")
    rows = [(balance, *_cells(np.array(runs))) for balance, runs in recalls.items()]
    click.echo(table([header, *rows]))
    publish("balance", recalls, target, to_mlflow=False)


def _cut(split: Split, share: float | None) -> Split:
    """The first images of each class: `share` of SIZES, all for None."""
    rows = np.concatenate(
        [
            np.flatnonzero(split.labels == label)[: None if share is None else max(2, round(share * size))]
            for label, size in enumerate(SIZES)
        ]
    )
    return Split(split.images[rows], split.labels[rows], tuple(split.names[row] for row in rows))


def _train(
    settings: Settings,
    contestant: str,
    balance: str,
    epochs: int,
    seed: int,
    info: DatasetInfo,
    splits: tuple[Split, Split],
    test: Split,
) -> list[float]:
    """The recall of each class."""
    recipe = {"balance": balance, "batch_size": 32, "optimizer": {"lr": 0.01}}
    changes: dict[str, Any] = {
        "seeds": [seed],
        "select_by": "balanced_accuracy",
        "train": {"epochs": epochs},
        "models": {contestant: {"recipe": recipe}},
    }
    job = prepare_contestant(changed(settings, changes), contestant, info, splits, quiet=True)
    with open_checkpoint(f"benchmark-{uuid.uuid4().hex}") as checkpoint:
        model = train_contestant(job, checkpoint, lambda _: None).model
    predicted = batch_predict(model.probabilities, test.images, 256, torch.device("cpu")).argmax(axis=1)
    recalls = [float((predicted[test.labels == label] == label).mean()) for label in range(len(SIZES))]
    click.echo(f"{balance}, seed {seed}: {', '.join(f'{recall:.1%}' for recall in recalls)}", err=True)
    return recalls


def _cells(recalls: NDArray[np.float64]) -> list[str]:
    """Mean and standard deviation over the seeds, of each class and of their mean."""
    columns = [*recalls.T, recalls.mean(axis=1)]
    spread = [f" ± {100 * stdev(column.tolist()):.1f}" if len(column) > 1 else "" for column in columns]
    return [f"{100 * mean(column.tolist()):.1f}{more} %" for column, more in zip(columns, spread, strict=True)]


if __name__ == "__main__":
    main()
