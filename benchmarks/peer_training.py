"""One training with one of the tools that `peers.py` compares, in a process that imports what a user of it would.

    python benchmarks/peer_training.py TOOL FOLDER

FOLDER has images/, network.pt and training.json, as `peers.py` writes them. Beside the tool, PyTorch and torchvision a
peer's process imports timm, by which the network is built. The time and the validation accuracy at the end of each
epoch go to FOLDER/epochs.json; the time is that of a clock which other processes read too.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORKERS = 2


@dataclass(frozen=True)
class Training:
    """What is the same for all tools, and what was measured so far."""

    folder: Path
    batch_size: int
    image_size: int
    epochs: int
    precision: str
    times: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    @property
    def images(self) -> Path:
        """The folder with train/<class>/ and val/<class>/."""
        return self.folder / "images"

    def network(self) -> Any:
        """Load the network with its starting weights."""
        import torch

        return torch.load(self.folder / "network.pt", weights_only=False)

    def end_epoch(self, accuracy: float) -> None:
        """Note the end of an epoch, with its validation accuracy."""
        self.times.append(time.monotonic())
        self.accuracies.append(round(accuracy, 4))


def _project(training: Training) -> None:
    import uuid

    from vit_vs_cnn.config.load import parse_settings
    from vit_vs_cnn.data.dataset import read_info, read_split
    from vit_vs_cnn.training.checkpoint import open_checkpoint
    from vit_vs_cnn.training.contestant import prepare_contestant, train_contestant

    settings = parse_settings(json.loads((training.folder / "settings.json").read_text()), "peers")
    prepared = training.folder / "prepared"
    splits = (read_split(prepared, "train"), read_split(prepared, "val"))
    job = prepare_contestant(settings, "resnet", read_info(prepared), splits, quiet=True)
    with open_checkpoint(f"benchmark-{uuid.uuid4().hex}") as checkpoint:
        train_contestant(job, checkpoint, lambda epoch: training.end_epoch(epoch.val_accuracy))


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


def _notebook(training: Training) -> None:
    import torch
    from torch.nn import functional

    network = training.network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    train_loader, val_loader = _loaders(training.images, training.batch_size)
    for _ in range(training.epochs):
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
        training.end_epoch(correct / len(val_loader.dataset))


def _lightning(training: Training) -> None:
    import lightning
    import torch
    from torch.nn import functional

    class Classifier(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network, self.correct = training.network(), 0

        def training_step(self, batch: Any) -> Any:
            return functional.cross_entropy(self.network(batch[0]), batch[1])

        def validation_step(self, batch: Any) -> None:
            self.correct += int((self.network(batch[0]).argmax(dim=1) == batch[1]).sum())

        def on_validation_epoch_end(self) -> None:
            training.end_epoch(self.correct / len(val_loader.dataset))
            self.correct = 0

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    train_loader, val_loader = _loaders(training.images, training.batch_size)
    trainer = lightning.Trainer(
        max_epochs=training.epochs, precision=training.precision, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Classifier(), train_loader, val_loader)


def _fastai(training: Training) -> None:
    from fastai.callback.core import Callback
    from fastai.callback.progress import ProgressCallback
    from fastai.callback.schedule import Learner
    from fastai.metrics import accuracy
    from fastai.vision.augment import Normalize, aug_transforms
    from fastai.vision.data import ImageDataLoaders

    class Report(Callback):  # type: ignore[misc]
        order = 100

        def after_epoch(self) -> None:
            training.end_epoch(float(self.recorder.values[-1][-1]))

    batch_tfms = [*aug_transforms(), Normalize.from_stats((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))]
    loaders = ImageDataLoaders.from_folder(
        training.images, train="train", valid="val", bs=training.batch_size, num_workers=WORKERS, batch_tfms=batch_tfms
    )
    learner = Learner(loaders, training.network(), metrics=accuracy, cbs=[Report()])
    learner.remove_cb(ProgressCallback)
    with learner.no_logging():
        learner.fit_one_cycle(training.epochs, 3e-3)


MODEL = "yolo11n-cls.yaml"  # of ultralytics; its layers are replaced


def _ultralytics(training: Training) -> None:
    from torch import nn
    from ultralytics import settings
    from ultralytics.models.yolo.classify import ClassificationTrainer
    from ultralytics.nn.tasks import ClassificationModel

    settings.update({"mlflow": False})  # it would track to the project's store

    class Network(ClassificationModel):  # type: ignore[misc]
        """Ultralytics' model around another network: logits in training, probabilities otherwise."""

        def __init__(self, classes: int) -> None:
            super().__init__(MODEL, nc=classes, verbose=False)
            self.model = nn.ModuleList([training.network()])

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
        "data": str(training.images),
        "project": str(training.folder),
        "epochs": training.epochs,
        "batch": training.batch_size,
        "imgsz": training.image_size,
        "device": "cpu",
        "workers": WORKERS,
        **dict.fromkeys(("plots", "save", "verbose"), False),
    }
    trainer = Trainer(overrides=overrides)
    trainer.add_callback(
        "on_fit_epoch_end", lambda state: training.end_epoch(float(state.metrics["metrics/accuracy_top1"]))
    )
    trainer.train()


TOOLS: dict[str, Callable[[Training], None]] = {
    "project": _project,
    "notebook": _notebook,
    "lightning": _lightning,
    "fastai": _fastai,
    "ultralytics": _ultralytics,
}


def main() -> None:
    """Train once, and write what was measured."""
    tool, folder = sys.argv[1], Path(sys.argv[2])
    training = Training(folder, **json.loads((folder / "training.json").read_text()))
    TOOLS[tool](training)
    measured = {"times": training.times, "accuracies": training.accuracies}
    (folder / "epochs.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
