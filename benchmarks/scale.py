"""Does training cost more per image, or more memory, as the data set grows from a thousand images to 1.3 million?

    python benchmarks/scale.py
    python benchmarks/scale.py --images 1000 --images 20000 --at-least 20000 --repeats 1

Each size is noise of 32 px on disk (1.3 million images take 4 GB, removed afterwards), on which a separate process
trains whole epochs. The network is so small that a slower way to the data would show. The process may have 2 GiB of
private memory, which the kernel enforces; pages of the mapped images are the system's and are not counted. The
sizes take turns, and the median of the repeats counts.
"""

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median
from typing import Any

import click

from record import json_option, mlflow_option, publish
from synthetic import synthetic_job, train_copy, write_synthetic_images
from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import table
from vit_vs_cnn.data.dataset import read_split

SIDE = 32
SIZES = (1_000, 10_000, 100_000, 1_300_000)
NETWORK = {"timm": "vit_tiny_patch16_224", "args": {"patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2}}


@click.command()
@click.option("--images", "sizes", default=SIZES, multiple=True, show_default=True, help="A size; repeatable.")
@click.option("--at-least", default=200_000, show_default=True, help="Images that are trained on at each measurement.")
@click.option("--limit-gb", default=2.0, show_default=True, help="Limit of the process's private memory, in GiB.")
@click.option("--repeats", default=3, show_default=True, help="How often each size is measured.")
@json_option
@mlflow_option
@click.option("--as-training", type=click.Path(path_type=Path), hidden=True, help="Train on this data.")
def main(
    sizes: tuple[int, ...],
    at_least: int,
    limit_gb: float,
    repeats: int,
    file: Path | None,
    to_mlflow: bool,
    as_training: Path | None,
) -> None:
    """Measure images per second and memory while the data set grows."""
    if as_training:
        click.echo(json.dumps(_train(as_training, at_least, limit_gb)))
        return
    results: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            click.echo(f"writing {size:,} images", err=True)
            write_synthetic_images(Path(folder) / str(size) / "train", size, SIDE)
        for _ in range(repeats):
            for size in sizes:
                for name, value in _measure(Path(folder) / str(size), at_least, limit_gb).items():
                    results.setdefault(str(size), {}).setdefault(name, []).append(value)
    rows = [
        (
            f"{int(size):,}",
            f"{median(measured['images_per_second']):,.0f}",
            f"{min(measured['images_per_second']):,.0f}",
            f"{max(measured['images_per_second']):,.0f}",
            f"{1e6 / median(measured['images_per_second']):.1f}",
            f"{max(measured['own_memory_mb']):,.0f}",
        )
        for size, measured in results.items()
    ]
    headings = ("images", "images/s", "lowest", "highest", "µs per image", "own memory MB")
    click.echo(table([headings, *rows]))
    publish("scale", results, file, to_mlflow=to_mlflow)


def _measure(data: Path, at_least: int, limit_gb: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--as-training", str(data)]
    command += ["--at-least", str(at_least), "--limit-gb", str(limit_gb)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        sys.exit(f"training on {data.name} images failed: {answer.stderr}")
    measured: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return measured


def _train(data: Path, at_least: int, limit_gb: float) -> dict[str, float]:
    limit = int(limit_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    memory = _OwnMemory()
    memory.start()
    train = read_split(data, "train")
    history = train_copy(synthetic_job(_settings(), "tiny", train, epochs=1 + math.ceil(at_least / len(train))))
    # The first epoch warms up.
    rates = [epoch.images_per_second for epoch in history[1:]]
    return {"images_per_second": median(rates), "own_memory_mb": memory.peak_mb()}


class _OwnMemory(threading.Thread):
    """Watches the memory that is the process's own (anonymous), not mapped from files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._peak, self._ended = 0.0, threading.Event()

    def run(self) -> None:
        """Look ten times a second."""
        while not self._ended.wait(0.1):
            self._look()

    def peak_mb(self) -> float:
        """The most so far, in megabytes (10⁶ bytes); ends the watch."""
        self._ended.set()
        self._look()
        return self._peak

    def _look(self) -> None:
        lines = Path(f"/proc/{os.getpid()}/smaps_rollup").read_text(encoding="ascii").splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
        self._peak = max(self._peak, kilobytes * 1024 / 1e6)


def _settings() -> Settings:
    values: dict[str, Any] = {
        "seed": 0,
        "data": {"source": "folder", "name": "synthetic", "path": "nothing", "image_size": SIDE},
        "recipe": {"batch_size": 512},
        "train": {"epochs": 1, "device": "cpu", "precision": "32-true"},
        "tune": {},
        "evaluate": {},
        "explain": {},
        "models": {"tiny": NETWORK},
    }
    return parse_settings(values)


if __name__ == "__main__":
    main()
