"""Does training or checking cost more per image, or more memory, as the data set grows to 1.3 million images?

    python benchmarks/scale.py
    python benchmarks/scale.py --images 1000 --images 20000 --at-least 20000 --repeats 1

Each size is noise of 32 px on disk (1.3 million images take 4 GB, removed afterwards), on which a separate process
trains whole epochs. The network is so small that a slower way to the data would show. The process may have 2 GiB of
private memory, which the kernel enforces; pages of the mapped images are the system's and are not counted. The
sizes take turns, and the median of the repeats counts.

Another process searches the images for what `prepare` reports, once each: the noise, in which no two look alike, and
handwritten digits (as much disk again), in which most do. Its seconds are the processor's, its memory is what it
needed more than before.
"""

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import click

from record import json_option, mlflow_option, publish
from synthetic import synthetic_job, train_copy, write_look_alikes, write_synthetic_images
from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import table
from vit_vs_cnn.data.dataset import read_split
from vit_vs_cnn.data.duplicates import fingerprint, identical_groups, near_groups

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
@click.option("--task", type=click.Choice(["train", "check"]), hidden=True, help="What a process of its own does …")
@click.option("--data", type=click.Path(path_type=Path), hidden=True, help="… with this data.")
def main(
    sizes: tuple[int, ...],
    at_least: int,
    limit_gb: float,
    repeats: int,
    file: Path | None,
    to_mlflow: bool,
    task: str | None,
    data: Path,
) -> None:
    """Measure speed and memory while the data set grows."""
    if task:
        limit = int(limit_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        click.echo(json.dumps(_train(data, at_least) if task == "train" else _check(data)))
        return
    trained: dict[int, dict[str, list[float]]] = {size: {} for size in sizes}
    checked: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        noise, look_alikes = Path(folder) / "noise", Path(folder) / "look-alikes"
        for size in sizes:
            click.echo(f"writing {size:,} images", err=True)
            write_synthetic_images(noise / str(size) / "train", size, SIDE)
        for _ in range(repeats):
            for size in sizes:
                for name, value in _measure("train", noise / str(size), at_least, limit_gb).items():
                    trained[size].setdefault(name, []).append(value)
        for size in sizes:
            write_look_alikes(look_alikes / str(size) / "train", size, SIDE)
            for images in (noise, look_alikes):
                checked[f"{size:,} {images.name}"] = _measure("check", images / str(size), at_least, limit_gb)
    rows = [
        (
            f"{size:,}",
            f"{median(measured['images_per_second']):,.0f}",
            f"{min(measured['images_per_second']):,.0f}",
            f"{max(measured['images_per_second']):,.0f}",
            f"{1e6 / median(measured['images_per_second']):.1f}",
            f"{max(measured['own_memory_mb']):,.0f}",
        )
        for size, measured in trained.items()
    ]
    headings = ("images", "images/s", "lowest", "highest", "µs per image", "own memory MB")
    click.echo(table([headings, *rows]))
    rows_of_checks = [
        (images, f"{measured['cpu_seconds']:,.1f}", f"{measured['added_memory_mb']:,.0f}", f"{measured['alike']:.0%}")
        for images, measured in checked.items()
    ]
    click.echo("\n" + table([("images checked", "CPU seconds", "added memory MB", "found alike"), *rows_of_checks]))
    publish("scale", {"training": trained, "checks": checked}, file, to_mlflow=to_mlflow)


def _measure(task: str, data: Path, at_least: int, limit_gb: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--task", task, "--data", str(data)]
    command += ["--at-least", str(at_least), "--limit-gb", str(limit_gb)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        sys.exit(f"{task} with {data.name} images failed: {answer.stderr}")
    measured: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return measured


def _train(data: Path, at_least: int) -> dict[str, float]:
    memory = _OwnMemory()
    memory.start()
    train = read_split(data, "train")
    history = train_copy(synthetic_job(_settings(), "tiny", train, epochs=1 + math.ceil(at_least / len(train))))
    # The first epoch warms up.
    rates = [epoch.images_per_second for epoch in history[1:]]
    return {"images_per_second": median(rates), "own_memory_mb": memory.peak_mb()}


def _check(data: Path) -> dict[str, float]:
    images = read_split(data, "train").images
    memory = _OwnMemory()
    before, memory_before = time.process_time(), memory.look()
    memory.start()
    prints = fingerprint(images)
    identical_groups(prints)
    alike = len(near_groups(prints).rows) / len(images)
    seconds, added = time.process_time() - before, memory.peak_mb() - memory_before
    return {"cpu_seconds": seconds, "added_memory_mb": added, "alike": alike}


class _OwnMemory(threading.Thread):
    """Watches the memory that is the process's own (anonymous), not mapped from files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._peak, self._ended = 0.0, threading.Event()

    def run(self) -> None:
        """Look ten times a second."""
        while not self._ended.wait(0.1):
            self.look()

    def peak_mb(self) -> float:
        """The most so far, in megabytes (10⁶ bytes); ends the watch."""
        self._ended.set()
        self.look()
        return self._peak

    def look(self) -> float:
        """The memory now, in megabytes."""
        lines = Path(f"/proc/{os.getpid()}/smaps_rollup").read_text(encoding="ascii").splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
        now = kilobytes * 1024 / 1e6
        self._peak = max(self._peak, now)
        return now


def _settings() -> Settings:
    values: dict[str, Any] = {
        "seeds": [0],
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
