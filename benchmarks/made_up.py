"""What several benchmarks train on: noise in the shape of a data set, and the project's trainer for it."""

import copy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.data.dataset import DatasetInfo, Split, SplitInfo
from vit_vs_cnn.models.trained import preprocess_for
from vit_vs_cnn.training.contestant import Prepared
from vit_vs_cnn.training.device import make_fabric
from vit_vs_cnn.training.loop import Trainer

CLASSES = 10
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
_CHUNK = 50_000


def made_up_images(count: int, side: int) -> Split:
    """Noise in memory."""
    images: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return Split(images, np.arange(count) % CLASSES, tuple(map(str, range(count))))


def write_made_up_images(folder: Path, count: int, side: int) -> None:
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


def made_up_info(settings: Settings, images: int) -> DatasetInfo:
    """The description of noise that stands for the data of `settings`."""
    split = SplitInfo(images=images, counts=(images // CLASSES,) * CLASSES, digest="made up")
    return DatasetInfo(
        name="made-up", source="folder", description="noise", classes=tuple(map(str, range(CLASSES))),
        image_size=settings.data.image_size, split_seed=0, mean=MEAN, std=STD,
        splits={"train": split, "val": split, "test": split}, digest="made up",
    )  # fmt: skip


def trainer_of(settings: Settings, name: str, info: DatasetInfo, ready: Prepared, epochs: int) -> Trainer:
    """The project's trainer of a contestant, on a copy of its network, for `epochs` epochs."""
    model = settings.model(name)
    return Trainer(
        make_fabric(ready.plan.device, ready.plan.precision),
        ready.plan,
        copy.deepcopy(ready.network),
        preprocess_for(model, info),
        CLASSES,
        model,
        settings.train.model_copy(update={"epochs": epochs, "patience": None}),
        settings.seed,
        name,
        quiet=True,
    )
