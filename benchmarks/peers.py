"""The same network on the same images with what people would use instead: how fast, and how accurate after equal time?

    python benchmarks/peers.py --data hand-signs.tar.gz --size 64 --rounds 3

fastai, ultralytics' classification trainer, Lightning's Trainer and a loop as in notebooks train the `cpu` preset's
resnet, from the same weights, with the same batch size and number of epochs, each as its documentation shows it: with
its own loader, augmentation and optimizer, from image files. They take turns with this project. uv installs each of
them into a folder under build/peers, beside the PyTorch that is there; none of them is a dependency of the project.

Whole epochs count: training and validation, the loader's processes included. `first epoch` begins before the tool is
imported. `after equal time` is the validation accuracy of the last epoch that ended within the project's own time.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click

from record import json_option, publish

STARTED = time.perf_counter()
FOLDER = Path("build/peers")
WORKERS = 2
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


@click.group(invoke_without_command=True)
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Folder or archive of images.")
@click.option("--size", default=32, show_default=True, help="Side of the images in pixels.")
@click.option("--epochs", default=4, show_default=True, type=click.IntRange(2), help="How many, the same for all.")
@click.option("--rounds", default=3, show_default=True, help="How often each of them trains.")
@click.option("--tool", "names", multiple=True, help="Only this one, beside the project; repeatable. Default: all.")
@json_option
@click.pass_context
def main(
    context: click.Context,
    data: Path | None,
    size: int,
    epochs: int,
    rounds: int,
    names: tuple[str, ...],
    file: Path | None,
) -> None:
    """Measure the project and its peers in turns."""
    if context.invoked_subcommand:
        return
    tools = ["project", *(name for name in TOOLS if name != "project" and name in (names or TOOLS))]
    for tool in tools:
        _install(tool)
    found: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
    with tempfile.TemporaryDirectory() as folder:
        _write_images(Path(folder), data, size)
        for _ in range(rounds):
            for tool in tools:
                found[tool].append(_measure(tool, Path(folder), epochs))
    rows = [_row(tool, runs, found["project"]) for tool, runs in found.items()]
    from vit_vs_cnn.core.console import table

    header = (
        "tool",
        "images/s",
        "lowest",
        "highest",
        "project is",
        "first epoch, s",
        "peak MB",
        "accuracy",
        "equal time",
    )
    click.echo(table([header, *rows]))
    publish("peers", {tool: {"runs": runs} for tool, runs in found.items()}, file, to_mlflow=False)


def _install(tool: str) -> None:
    if tool in REQUIREMENTS and not (FOLDER / tool).is_dir():
        command = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(FOLDER / tool), *REQUIREMENTS[tool]]
        subprocess.run(command, check=True)


def _write_images(folder: Path, data: Path | None, size: int) -> None:
    """The prepared images, and the same as PNG files in train/<class>/ and val/<class>/."""
    from PIL import Image

    from vit_vs_cnn.config.load import merged_params, settings_of
    from vit_vs_cnn.core.paths import project_root
    from vit_vs_cnn.data.dataset import read_split
    from vit_vs_cnn.data.prepare import prepare

    source = (f"data.path={data.resolve()}", "data.source=folder") if data else ("data.source=digits",)
    changes = ("data.name=peers", f"data.image_size={size}", "models.resnet.recipe.batch_size=64")
    params = merged_params(project_root(), "cpu", (*source, *changes))
    (folder / "settings.json").write_text(settings_of(params).model_dump_json())
    info, _ = prepare(settings_of(params).data, folder / "prepared")
    for split in ("train", "val"):
        images = read_split(folder / "prepared", split)
        for row, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
            path = folder / "images" / split / info.classes[label] / f"{row:06}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def _measure(tool: str, folder: Path, epochs: int) -> dict[str, Any]:
    path = os.pathsep.join([*sys.path, str((FOLDER / tool).resolve())])
    answer = subprocess.run(
        [sys.executable, __file__, "train", tool, str(folder), str(epochs)],
        env=os.environ | {"PYTHONPATH": path, "YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    run: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    click.echo(f"{tool}: {run['images_per_second']:,.0f} images/s, accuracies {run['accuracies']}", err=True)
    return run


def _row(tool: str, runs: list[dict[str, Any]], project: list[dict[str, Any]]) -> tuple[str, ...]:
    rates = [run["images_per_second"] for run in runs]
    ratios = [own["images_per_second"] / run["images_per_second"] for own, run in zip(project, runs, strict=True)]
    equal = [_accuracy_within(run, own["seconds"][-1]) for run, own in zip(runs, project, strict=True)]
    return (
        tool,
        *(f"{rate:,.0f}" for rate in (median(rates), min(rates), max(rates))),
        f"{median(ratios):.2f}× ({min(ratios):.2f}-{max(ratios):.2f})",
        f"{median(run['seconds'][0] for run in runs):.1f}",
        f"{median(run['peak_mb'] for run in runs):,.0f}",
        f"{median(run['accuracies'][-1] for run in runs):.1%}",
        f"{median(equal):.1%}",
    )


def _accuracy_within(run: dict[str, Any], seconds: float) -> float:
    return max((a for a, at in zip(run["accuracies"], run["seconds"], strict=True) if at <= seconds), default=0.0)


@main.command(hidden=True)
@click.argument("tool")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("epochs", type=int)
def train(tool: str, folder: Path, epochs: int) -> None:
    """Train once in this process, and print what was measured as the last line."""
    from vit_vs_cnn.config.load import parse_settings
    from vit_vs_cnn.data.dataset import read_info, read_split
    from vit_vs_cnn.training.contestant import prepare_contestant

    settings = parse_settings(json.loads((folder / "settings.json").read_text()) | {"seeds": [0]}, "peers")
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"epochs": epochs})})
    splits = (read_split(folder / "prepared", "train"), read_split(folder / "prepared", "val"))
    job = prepare_contestant(settings, "resnet", read_info(folder / "prepared"), splits, quiet=True)
    seconds: list[float] = []
    accuracies: list[float] = []

    def on_epoch(accuracy: float) -> None:
        seconds.append(time.perf_counter() - STARTED)
        accuracies.append(round(accuracy, 4))

    TOOLS[tool](job, folder / "images", epochs, on_epoch)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    run = {
        "seconds": seconds,
        "accuracies": accuracies,
        "images_per_second": len(splits[0]) * (epochs - 1) / (seconds[-1] - seconds[0]),
        "peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + WORKERS * children) / 1e3,
    }
    print(f"\n{json.dumps(run)}")


OnEpoch = Callable[[float], None]


def _project(job: Any, _: Path, __: int, on_epoch: OnEpoch) -> None:
    import uuid

    from vit_vs_cnn.training.checkpoint import open_checkpoint
    from vit_vs_cnn.training.contestant import train_contestant

    with open_checkpoint(f"benchmark-{uuid.uuid4().hex}") as checkpoint:
        train_contestant(job, checkpoint, lambda epoch: on_epoch(epoch.val_accuracy))


def _loaders(images: Path, batch_size: int) -> tuple[Any, Any]:
    """Torchvision's folders behind a DataLoader of two processes, as tutorials have them."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    plain = [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))]
    train, val = (
        ImageFolder(str(images / split), transforms.Compose([*augment, *plain]))
        for split, augment in (("train", [transforms.RandomHorizontalFlip()]), ("val", []))
    )
    return (
        DataLoader(train, batch_size, shuffle=True, num_workers=WORKERS),
        DataLoader(val, 256, num_workers=WORKERS),
    )


def _notebook(job: Any, images: Path, epochs: int, on_epoch: OnEpoch) -> None:
    import torch
    from torch.nn import functional

    network = job.network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    train_loader, val_loader = _loaders(images, job.model.recipe.batch_size)
    for _ in range(epochs):
        network.train()
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()
        network.eval()
        correct = 0
        with torch.no_grad():
            for inputs, labels in val_loader:
                correct += int((network(inputs).argmax(dim=1) == labels).sum())
        on_epoch(correct / len(val_loader.dataset))


def _lightning(job: Any, images: Path, epochs: int, on_epoch: OnEpoch) -> None:
    import lightning
    import torch
    from torch.nn import functional

    class Classifier(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network, self.correct = job.network, 0

        def training_step(self, batch: Any) -> Any:
            return functional.cross_entropy(self.network(batch[0]), batch[1])

        def validation_step(self, batch: Any) -> None:
            self.correct += int((self.network(batch[0]).argmax(dim=1) == batch[1]).sum())

        def on_validation_epoch_end(self) -> None:
            on_epoch(self.correct / len(val_loader.dataset))
            self.correct = 0

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    train_loader, val_loader = _loaders(images, job.model.recipe.batch_size)
    trainer = lightning.Trainer(
        max_epochs=epochs, precision=job.plan.precision, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Classifier(), train_loader, val_loader)


def _fastai(job: Any, images: Path, epochs: int, on_epoch: OnEpoch) -> None:
    from fastai.callback.core import Callback
    from fastai.callback.progress import ProgressCallback
    from fastai.callback.schedule import Learner
    from fastai.metrics import accuracy
    from fastai.vision.augment import Normalize, aug_transforms
    from fastai.vision.data import ImageDataLoaders

    class Report(Callback):  # type: ignore[misc]
        order = 100

        def after_epoch(self) -> None:
            on_epoch(float(self.recorder.values[-1][-1]))

    batch_tfms = [*aug_transforms(), Normalize.from_stats((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))]
    loaders = ImageDataLoaders.from_folder(
        images, train="train", valid="val", bs=job.model.recipe.batch_size, num_workers=WORKERS, batch_tfms=batch_tfms
    )
    learner = Learner(loaders, job.network, metrics=accuracy, cbs=[Report()])
    learner.remove_cb(ProgressCallback)
    with learner.no_logging():
        learner.fit_one_cycle(epochs, 3e-3)


MODEL = "yolo11n-cls.yaml"  # of ultralytics; its layers are replaced


def _ultralytics(job: Any, images: Path, epochs: int, on_epoch: OnEpoch) -> None:
    from torch import nn
    from ultralytics import settings
    from ultralytics.models.yolo.classify import ClassificationTrainer
    from ultralytics.nn.tasks import ClassificationModel

    settings.update({"mlflow": False})  # it would track to the project's store

    class Network(ClassificationModel):  # type: ignore[misc]
        """Ultralytics' model around another network: logits in training, probabilities otherwise."""

        def __init__(self, classes: int) -> None:
            super().__init__(MODEL, nc=classes, verbose=False)
            self.model = nn.ModuleList([job.network])

        def predict(self, x: Any, *_: Any, **__: Any) -> Any:
            logits = self.model[0](x)
            return logits if self.training else (logits.softmax(1), logits)

    class Trainer(ClassificationTrainer):  # type: ignore[misc]
        def setup_model(self) -> None:
            self.model = Network(self.data["nc"])

        def save_model(self) -> None:
            """Save nothing, as the others do."""

        def final_eval(self) -> None:
            """Every epoch has been evaluated."""

    overrides = {
        "model": MODEL,
        "data": str(images),
        "project": str(images.parent),
        "epochs": epochs,
        "batch": job.model.recipe.batch_size,
        "imgsz": job.info.image_size,
        "device": "cpu",
        "workers": WORKERS,
        **dict.fromkeys(("plots", "save", "verbose"), False),
    }
    trainer = Trainer(overrides=overrides)
    trainer.add_callback("on_fit_epoch_end", lambda state: on_epoch(float(state.metrics["metrics/accuracy_top1"])))
    trainer.train()


TOOLS: dict[str, Callable[[Any, Path, int, OnEpoch], None]] = {
    "project": _project,
    "notebook": _notebook,
    "lightning": _lightning,
    "fastai": _fastai,
    "ultralytics": _ultralytics,
}


if __name__ == "__main__":
    main()
