"""What does an epoch on a CPU gain when the process keeps the memory of freed tensors?

    python benchmarks/allocator.py --preset cpu --repeats 4

Images per second of the project's epoch, on synthetic pixels, for every contestant of a preset: `kept` as the project
trains, `returned` with glibc as it comes. Each measurement is a separate process, because a heap that has grown does
not shrink again. They take turns; the gain is the median of the ratios within a turn.
"""

import ctypes
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from unittest.mock import patch

import click

from record import json_option, mlflow_option, publish
from synthetic import synthetic_images, synthetic_job, train_copy
from vit_vs_cnn.config.load import merged_params, settings_of
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import table
from vit_vs_cnn.core.paths import project_root

WAYS = ("kept", "returned")


@click.command()
@click.option("--preset", help="A preset; default: params.yaml as it is.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable.")
@click.option("--images", default=2048, show_default=True, type=click.IntRange(256), help="Images of an epoch.")
@click.option("--repeats", default=3, show_default=True, help="How often each way is measured.")
@json_option
@mlflow_option
@click.option("--only", nargs=2, hidden=True, help="Print the rate of this contestant, this way, in this process.")
def main(
    preset: str | None,
    overrides: tuple[str, ...],
    images: int,
    repeats: int,
    file: Path | None,
    to_mlflow: bool,
    only: tuple[str, str] | None,
) -> None:
    """Measure epochs with memory kept and with memory returned for each contestant of a preset."""
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"):
        raise click.UsageError("only glibc's allocator can keep memory: there is nothing to compare here")
    settings = settings_of(merged_params(project_root(), preset, overrides))
    if only:
        name, way = only
        returned = patch("vit_vs_cnn.training.setup.keep_freed_memory") if way == "returned" else nullcontext()
        with returned:
            click.echo(_rate(settings, name, images))
        return
    results: dict[str, dict[str, list[float]]] = {name: {way: [] for way in WAYS} for name in settings.models}
    for _ in range(repeats):
        for name, ways in results.items():
            for way, rates in ways.items():
                child = [sys.executable, *sys.argv, "--only", name, way]
                answer = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True)
                rates.append(float(answer.stdout))
    rows = [
        (name, way, *(f"{rate:,.0f}" for rate in (median(rates), min(rates), max(rates))), _gain(ways, way))
        for name, ways in results.items()
        for way, rates in ways.items()
    ]
    click.echo(table([("contestant", "memory", "images/s", "lowest", "highest", "of returned"), *rows]))
    publish("allocator", results, file, to_mlflow=to_mlflow)


def _rate(settings: Settings, name: str, images: int) -> float:
    """Images per second over the epochs after the first, which warms up."""
    train = synthetic_images(images, settings.data.image_size)
    history = train_copy(synthetic_job(settings, name, train, epochs=4))
    return median(epoch.images_per_second for epoch in history[1:])


def _gain(ways: dict[str, list[float]], way: str) -> str:
    return f"{median(rate / returned for rate, returned in zip(ways[way], ways['returned'], strict=True)):.2f}"


if __name__ == "__main__":
    main()
