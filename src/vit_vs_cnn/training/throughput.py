"""How fast a contestant trains here, from a few steps of the training loop on noise, before any data are there."""

import tempfile
from pathlib import Path

import numpy as np

from vit_vs_cnn.config.load import changed
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.data.dataset import DatasetInfo, Split, decoding_of

_MOST_STEPS = 16
_TIMED_EPOCHS = 2
# As many pixels as 16 images of 224 px have.
_MOST_PIXELS = 16 * 224**2


def seconds_per_image(settings: Settings, contestant: str, classes: tuple[str, ...]) -> float:
    """Seconds of training for each image, validation aside; on one device of several, divided.

    A first epoch allocates; of the others the faster one counts, because a busy machine only ever adds to it.
    """
    # Whoever only names this function, to call it in a process of its own, needs no PyTorch.
    from vit_vs_cnn.training.checkpoint import Checkpoint
    from vit_vs_cnn.training.contestant import prepare_contestant
    from vit_vs_cnn.training.loop import Trainer
    from vit_vs_cnn.training.results import Epoch
    from vit_vs_cnn.training.setup import make_fabric

    changes = {
        "epochs": 1 + _TIMED_EPOCHS,
        "patience": None,
        "refit": False,
        "devices": 1,
        "nodes": 1,
        "compile": False,
    }
    random = {"pretrained": False, "weights": None}
    timed = changed(settings, {"train": changes, "models": {contestant: random}})
    model, size = timed.model(contestant), timed.data.image_size
    seen = model.input_size or size
    images = max(16, min(_MOST_STEPS * model.recipe.batch_size, _MOST_PIXELS // seen**2))
    train, val = _noise(images, size, len(classes)), _noise(2, size, len(classes))
    info = DatasetInfo(
        name=settings.data.name,
        source=settings.data.source,
        description="noise",
        classes=classes,
        image_size=size,
        split_seed=0,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        splits={},
        digest="noise",
        decoding=decoding_of(settings.data),
    )
    job = prepare_contestant(timed, contestant, info, (train, val), quiet=True)
    epochs: list[Epoch] = []
    with tempfile.TemporaryDirectory() as folder:
        Trainer(make_fabric(job.plan), job).run(Checkpoint(Path(folder)), epochs.append)
    return 1 / max(epoch.images_per_second for epoch in epochs[1:]) / (settings.train.devices * settings.train.nodes)


def _noise(images: int, size: int, classes: int) -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (images, size, size, 3), np.uint8)
    return Split(pixels, np.arange(images) % classes, tuple(map(str, range(images))))
