"""The numbers of a training: a change of the code that moves them changes every published result."""

from collections.abc import Callable
from typing import Any

import pytest

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.data.dataset import DatasetInfo, read_split
from vit_vs_cnn.training.checkpoint import open_checkpoint
from vit_vs_cnn.training.contestant import prepare_contestant, train_contestant

# All that acts on a batch, a loss or a weight in one recipe.
RICH: dict[str, Any] = {
    "label_smoothing": 0.1,
    "clip_grad": 1.0,
    "ema_decay": 0.9,
    "augment": {"alternating_flip": True, "cutout": 0.25, "mixup": 0.4, "cutmix": 1.0},
}
# Losses on train and validation of each epoch, with PyTorch 2.15 and timm 1.0.31.
LOSSES = {
    "vit": [(1.0736669, 0.9609681), (0.9352429, 0.8245644), (0.8846276, 0.7863061), (0.8701006, 0.7743402)],
    "resnet": [(1.0888257, 1.0696483), (1.0365168, 1.0450541), (1.0210176, 1.0266418), (0.9802738, 1.0123330)],
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_of_a_rich_recipe_are_what_they_always_were(
    make_settings: Callable[..., Settings], prepared: DatasetInfo, name: str
) -> None:
    settings = make_settings({"train": {"epochs": 4}, "recipe": RICH})
    splits = (read_split(PREPARED, "train"), read_split(PREPARED, "val"))
    job = prepare_contestant(settings, name, prepared, splits, quiet=True)
    with open_checkpoint("losses") as checkpoint:
        history = train_contestant(job, checkpoint, lambda _: None).history
    losses = [loss for epoch in history for loss in (epoch.train_loss, epoch.val_loss)]
    # One and two threads, and the instructions of older CPUs (AVX2, none), differ by 2e-7 at most, because sums are
    # rounded in another order. Another random number, or a setting that is ignored, changes the first digits.
    assert losses == pytest.approx([loss for epoch in LOSSES[name] for loss in epoch], rel=1e-4)
