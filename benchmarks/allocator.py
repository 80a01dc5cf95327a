"""What does an epoch on a CPU gain when the process keeps the memory of freed tensors?

    python benchmarks/allocator.py --preset cpu --repeats 5

Images per second of the project's epoch, on made-up pixels, for every contestant of a preset: `kept` as the project
trains, `returned` with glibc as it comes. They take turns, and the median of the repeats counts.
"""

import ctypes
import sys
import uuid
from pathlib import Path
from statistics import median

import click

from made_up import made_up_images, made_up_info, trainer_of
from record import json_option, mlflow_option, publish
from vit_vs_cnn.config import Settings
from vit_vs_cnn.data.loader import ResidentImages
from vit_vs_cnn.layout import project_root
from vit_vs_cnn.params import merged_params, settings_of
from vit_vs_cnn.table import aligned
from vit_vs_cnn.training.checkpoint import Checkpoints
from vit_vs_cnn.training.contestant import prepare_contestant

# glibc's defaults, by the names and numbers of its malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = (-1, 128 * 1024), (-4, 65_536)


@click.command()
@click.option("--preset", help="A preset; default: params.yaml as it is.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable.")
@click.option("--images", default=2048, show_default=True, type=click.IntRange(256), help="Images of an epoch.")
@click.option("--repeats", default=5, show_default=True, help="How often each way is measured.")
@json_option
@mlflow_option
def main(
    preset: str | None, overrides: tuple[str, ...], images: int, repeats: int, file: Path | None, to_mlflow: bool
) -> None:
    """Measure epochs with memory kept and with memory returned for each contestant of a preset."""
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"):
        raise click.UsageError("only glibc's allocator can be told to keep memory: there is nothing to compare here")
    settings = settings_of(merged_params(project_root(), preset, overrides))
    figures = {name: _measure(settings, name, images, repeats) for name in settings.models}
    rows = [
        (name, way, *(f"{each:,.0f}" for each in (median(rates), min(rates), max(rates))), _gain(ways, way))
        for name, ways in figures.items()
        for way, rates in ways.items()
    ]
    click.echo(aligned([("contestant", "memory", "images/s", "lowest", "highest", "of returned"), *rows]))
    publish("allocator", figures, file, to_mlflow=to_mlflow)


def _measure(settings: Settings, name: str, images: int, repeats: int) -> dict[str, list[float]]:
    info = made_up_info(settings, images)
    ready = prepare_contestant(settings, name, info)
    train = ResidentImages(made_up_images(images, settings.data.image_size), ready.plan.device)
    val = ResidentImages(made_up_images(64, settings.data.image_size), ready.plan.device)
    rates: dict[str, list[float]] = {"kept": [], "returned": []}
    for _ in range(repeats):
        for way, seen in rates.items():
            trainer = trainer_of(settings, name, info, ready, epochs=2)  # this tells glibc to keep memory
            if way == "returned":
                _return_freed_memory()
            checkpoints = Checkpoints(f"benchmark-allocator-{uuid.uuid4().hex}")
            result = trainer.run(train, val, checkpoints.file, lambda _: None)
            checkpoints.remove()
            seen.append(result.history[1].images_per_second)  # the first epoch warms up
    return rates


def _return_freed_memory() -> None:
    for parameter, default in (_TRIM_THRESHOLD, _MMAP_MAX):
        ctypes.CDLL(None).mallopt(parameter, default)


def _gain(ways: dict[str, list[float]], way: str) -> str:
    return f"{median(ways[way]) / median(ways['returned']):.2f}"


if __name__ == "__main__":
    main()
