"""The same network on the same images with what people would use instead: how fast, and how accurate after equal time?

    python benchmarks/peers.py --data hand-signs.tar.gz --size 32 --epochs 4 --rounds 5

fastai, ultralytics' classification trainer, Lightning's Trainer and a loop as in notebooks train the `cpu` preset's
resnet, from the same weights, with the same batch size and number of epochs, each as its documentation shows it: with
its own loader, augmentation and optimizer, from image files. They take turns with this project. uv installs each of
them into a folder under build/peers, beside the PyTorch that is there; none of them is a dependency of the project.

The clock of a training starts with its process, which imports only what a user of that tool would (for peers nothing
of this project but the file of the network): start, imports, loading the network or building it, epochs with their
validation, the loader's processes included. Before it, and for all alike, are decoding and resizing: the project
starts from its prepared arrays, the peers from PNG files of the same size. `images/s` is of the epochs after the first,
`after equal time` the best validation accuracy of the epochs that ended within the project's own time. `peak MB` is the
proportional set size of the process and its children, in which shared pages count once (Linux), looked at twice a
second. The ratios are paired within a round.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import click
import psutil

from peer_training import TOOLS
from record import json_option, publish
from vit_vs_cnn.core.console import table

FOLDER = Path("build/peers")
SECONDS_BETWEEN_LOOKS = 0.5
CONFIDENCE = 0.95
# Without their dependencies: PyTorch and what else they share with the project is there already.
REQUIREMENTS = {
    "fastai": (
        "fastai", "fastcore", "fastdownload", "fastprogress", "fasttransform", "plum-dispatch", "beartype",
        "python-fasthtml", "oauthlib", "itsdangerous", "beautifulsoup4", "soupsieve", "fastlite", "apswutils", "apsw",
        "python-multipart",
    ),
    "ultralytics": ("ultralytics", "ultralytics-thop", "polars", "polars-runtime-32"),
    "lightning": ("lightning", "lightning-utilities", "pytorch-lightning", "torchmetrics"),
}  # fmt: skip


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Folder or archive of images.")
@click.option("--size", default=32, show_default=True, help="Side of the images in pixels.")
@click.option("--epochs", default=4, show_default=True, type=click.IntRange(2), help="How many, the same for all.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often each of them trains.")
@click.option("--tool", "names", multiple=True, help="Only this one, beside the project; repeatable. Default: all.")
@json_option
def main(data: Path | None, size: int, epochs: int, rounds: int, names: tuple[str, ...], file: Path | None) -> None:
    """Measure the project and its peers in turns."""
    tools = ["project", *(name for name in TOOLS if name != "project" and name in (names or TOOLS))]
    for tool in tools:
        _install(tool)
    found: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: libraries that this one had loaded would share their memory with the tools.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            images = pool.submit(_write_inputs, Path(folder), data, size, epochs).result()
        for _ in range(rounds):
            for tool in tools:
                found[tool].append(_measure(tool, Path(folder), images))
    kind = f"{CONFIDENCE:.0%}" if rounds >= 3 else "range"
    header = ("tool", "images/s", "lowest", "highest", f"project is ({kind})", "first epoch, s")
    rows = [_row(tool, runs, found["project"]) for tool, runs in found.items()]
    click.echo(table([(*header, "peak MB", "accuracy", "equal time"), *rows]))
    publish("peers", {tool: {"runs": runs} for tool, runs in found.items()}, file, to_mlflow=False)


def _install(tool: str) -> None:
    if tool in REQUIREMENTS and not (FOLDER / tool).is_dir():
        command = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(FOLDER / tool), *REQUIREMENTS[tool]]
        subprocess.run(command, check=True)


def _write_inputs(folder: Path, data: Path | None, size: int, epochs: int) -> int:
    """Write what every training starts from, and return how many images an epoch has.

    These are the prepared images with the settings, for the project; for the peers the same images as PNG files in
    train/<class>/ and val/<class>/, the network with its starting weights, and what they are told.
    """
    import torch
    from PIL import Image

    from vit_vs_cnn.config.load import merged_params, settings_of
    from vit_vs_cnn.core.paths import project_root
    from vit_vs_cnn.data.dataset import read_split
    from vit_vs_cnn.data.prepare import prepare
    from vit_vs_cnn.training.contestant import prepare_contestant

    source = (f"data.path={data.resolve()}", "data.source=folder") if data else ("data.source=digits",)
    changes = ("data.name=peers", f"data.image_size={size}", "models.resnet.recipe.batch_size=64", "seeds=[0]")
    params = merged_params(project_root(), "cpu", (*source, *changes, f"train.epochs={epochs}"))
    settings = settings_of(params)
    (folder / "settings.json").write_text(settings.model_dump_json())
    info, _ = prepare(settings.data, folder / "prepared")
    train, val = (read_split(folder / "prepared", split) for split in ("train", "val"))
    for split, images in (("train", train), ("val", val)):
        for row, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
            path = folder / "images" / split / info.classes[label] / f"{row:06}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    job = prepare_contestant(settings, "resnet", info, (train, val), quiet=True)
    torch.save(job.network, folder / "network.pt")
    told = {"batch_size": job.model.recipe.batch_size, "image_size": size, "precision": job.plan.precision}
    (folder / "training.json").write_text(json.dumps(told | {"epochs": epochs}))
    return len(train)


def _measure(tool: str, folder: Path, images: int) -> dict[str, Any]:
    path = os.pathsep.join([*sys.path, str((FOLDER / tool).resolve())])
    environment = {"PYTHONPATH": path, "YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true"}
    command = [sys.executable, str(Path(__file__).with_name("peer_training.py")), tool, str(folder)]
    start, peak = time.monotonic(), 0
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, _memory(process.pid))
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if process.returncode:
        sys.exit(f"error: {tool} ended with exit code {process.returncode}.")
    measured = json.loads((folder / "epochs.json").read_text())
    seconds = [at - start for at in measured["times"]]
    rate = images * (len(seconds) - 1) / (seconds[-1] - seconds[0])
    accuracies = measured["accuracies"]
    click.echo(f"{tool}: {rate:,.0f} images/s, accuracies {accuracies}", err=True)
    return {"seconds": seconds, "accuracies": accuracies, "images_per_second": rate, "peak_mb": peak / 1e6}


def _memory(pid: int) -> int:
    """Proportional set size in bytes of a process and all below it."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # it has just ended
                total += one.memory_full_info().pss
    return total


def _row(tool: str, runs: list[dict[str, Any]], project: list[dict[str, Any]]) -> tuple[str, ...]:
    rates = [run["images_per_second"] for run in runs]
    ratios = [own["images_per_second"] / run["images_per_second"] for own, run in zip(project, runs, strict=True)]
    equal = [_accuracy_within(run, own["seconds"][-1]) for run, own in zip(runs, project, strict=True)]
    return (
        tool,
        *(f"{rate:,.0f}" for rate in (median(rates), min(rates), max(rates))),
        "{:.2f}× ({:.2f}-{:.2f})".format(*ratio_interval(ratios)),
        f"{median(run['seconds'][0] for run in runs):.1f}",
        f"{median(run['peak_mb'] for run in runs):,.0f}",
        f"{median(run['accuracies'][-1] for run in runs):.1%}",
        f"{median(equal):.1%}",
    )


def ratio_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Compute the geometric mean of ratios, one of each round, and its t interval; of fewer than three, their range."""
    logs = [math.log(ratio) for ratio in ratios]
    middle = mean(logs)
    if len(logs) < 3:
        return math.exp(middle), min(ratios), max(ratios)
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1)) * stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def _accuracy_within(run: dict[str, Any], seconds: float) -> float:
    return max((a for a, at in zip(run["accuracies"], run["seconds"], strict=True) if at <= seconds), default=0.0)


if __name__ == "__main__":
    main()
