"""What several benchmarks train on: noise in the shape of a data set, and the project's trainer on it."""

import copy
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.config.load import merged_params, settings_of
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.data.dataset import DatasetInfo, Split, SplitInfo
from vit_vs_cnn.training.checkpoint import open_checkpoint
from vit_vs_cnn.training.contestant import prepare_contestant
from vit_vs_cnn.training.loop import Trainer
from vit_vs_cnn.training.results import Epoch
from vit_vs_cnn.training.setup import TrainingJob, make_fabric

CLASSES = 10
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
_CHUNK = 50_000


def synthetic_images(count: int, side: int) -> Split:
    """Noise in memory."""
    images: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return Split(images, np.arange(count) % CLASSES, tuple(map(str, range(count))))


def write_synthetic_images(folder: Path, count: int, side: int) -> None:
    """Noise as `write_split` lays it out, but never more than a part of it in memory."""
    folder.mkdir(parents=True)
    shape = (count, side, side, 3)
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    rng = np.random.default_rng(0)
    for start in range(0, count, _CHUNK):
        part = images[start : start + _CHUNK]
        part[:] = np.frombuffer(rng.bytes(part.nbytes), np.uint8).reshape(part.shape)
    images.flush()
    np.save(folder / "labels.npy", np.arange(count) % CLASSES)
    with (folder / "names.json").open("w", encoding="utf-8") as file:
        file.write("[")
        file.writelines(f'{"," if i else ""}\n"{i:07}.png"' for i in range(count))
        file.write("\n]")


def write_look_alikes(folder: Path, count: int, side: int) -> None:
    """Handwritten digits of scikit-learn, each many times, shifted by a pixel and with noise: all look alike."""
    import cv2
    from sklearn.datasets import load_digits

    folder.mkdir(parents=True)
    digits = np.stack(
        [cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC) for image in load_digits().images]
    )
    shape = (count, side, side, 3)
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    rng = np.random.default_rng(0)
    chunk = _CHUNK // 10
    for start in range(0, count, chunk):
        part = images[start : start + chunk]
        drawn = np.roll(digits, rng.integers(-1, 2, 2), axis=(1, 2))[rng.integers(0, len(digits), len(part))]
        part[:] = np.clip(15.9 * drawn + rng.normal(0, 3, drawn.shape), 0, 255)[..., None]
    images.flush()
    np.save(folder / "labels.npy", np.zeros(count, np.int64))
    (folder / "names.json").write_text("[]", encoding="utf-8")


def synthetic_info(settings: Settings, images: int) -> DatasetInfo:
    """The description of noise that stands for the data of `settings`."""
    split = SplitInfo(images=images, counts=(images // CLASSES,) * CLASSES, digest="synthetic")
    return DatasetInfo(
        name="synthetic", source="folder", description="noise", classes=tuple(map(str, range(CLASSES))),
        image_size=settings.data.image_size, split_seed=0, mean=MEAN, std=STD,
        splits={"train": split, "val": split, "test": split}, digest="synthetic",
    )  # fmt: skip


def synthetic_job(settings: Settings, contestant: str, train: Split, epochs: int) -> TrainingJob:
    """A contestant, ready to be trained on `train` for `epochs` epochs, with 64 images of noise to validate on."""
    budget = settings.train.model_copy(update={"epochs": epochs, "patience": None, "devices": 1})
    settings, side = settings.model_copy(update={"train": budget}), settings.data.image_size
    splits = (train, synthetic_images(64, side))
    return prepare_contestant(settings, contestant, synthetic_info(settings, len(train)), splits, quiet=True)


def train_copy(job: TrainingJob, on_epoch: Callable[[Epoch], None] = lambda _: None) -> list[Epoch]:
    """Train a copy of the job's network by the project's trainer, and return the history."""
    trainer = Trainer(make_fabric(job.plan), replace(job, network=copy.deepcopy(job.network)))
    with open_checkpoint(f"benchmark-{uuid.uuid4().hex}") as checkpoint:
        return trainer.run(checkpoint, on_epoch)


def register_untrained(root: Path, name: str, folder: Path) -> None:
    """Export the ViT of the demo preset of the project in `root`, untrained, to `folder`: the champion `name`."""
    from vit_vs_cnn.models.build import create_model
    from vit_vs_cnn.models.export import export_model
    from vit_vs_cnn.models.trained import TrainedModel, preprocess_for
    from vit_vs_cnn.registry.signing import signature_tags
    from vit_vs_cnn.tracking.store import open_client

    settings = settings_of(merged_params(root, "demo", ()))
    info, model, side = synthetic_info(settings, 10), settings.models["vit"], settings.data.image_size
    network = create_model(model, len(info.classes), side).eval()
    trained = TrainedModel(network, preprocess_for(model, info), temperature=1.0)
    export_model(trained, "vit", model, info, np.zeros((2, side, side, 3), np.uint8), folder)
    client = open_client()
    client.create_registered_model(name)
    client.create_model_version(name, source=str(folder), tags=signature_tags(folder))
    client.set_registered_model_alias(name, "champion", "1")
