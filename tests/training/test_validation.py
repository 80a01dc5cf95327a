"""Scores of a validation, and batch norm's statistics before it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric import Fabric
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor, nn

from vit_vs_cnn.config.schema import Settings, merge
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.data.dataset import DatasetInfo, Split, read_split
from vit_vs_cnn.data.loader import ResidentImages
from vit_vs_cnn.training.checkpoint import open_checkpoint
from vit_vs_cnn.training.contestant import FinishedTraining, prepare_contestant, train_contestant
from vit_vs_cnn.training.validation import plain_batches, recompute_statistics, validate

CLASSES = 4
FABRIC = Fabric(accelerator="cpu", devices=1)


@given(st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=40))
def test_scores_are_scikit_learn_s(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    logits = torch.eye(CLASSES)[predicted]
    batches = [(logits[start : start + 7], torch.from_numpy(labels[start : start + 7])) for start in range(0, 40, 7)]
    scores = validate(lambda images: images, [batch for batch in batches if len(batch[1])], CLASSES, FABRIC)
    _, recall, f1, images = precision_recall_fscore_support(labels, predicted, labels=range(CLASSES), zero_division=0.0)
    assert scores.accuracy == pytest.approx(np.mean(labels == predicted))
    assert scores.balanced_accuracy == pytest.approx(recall[images > 0].mean())
    assert scores.macro_f1 == pytest.approx(f1[images > 0].mean())
    assert scores.top_share == pytest.approx(np.bincount(predicted).max() / len(predicted))
    expected = nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item()
    assert scores.loss == pytest.approx(expected, rel=1e-5)


def test_statistics_of_a_batch_norm_that_forgets_quickly_become_those_of_all_batches() -> None:
    torch.manual_seed(0)
    batches = [torch.randn(8, 3, 4, 4) * scale for scale in (1.0, 2.0, 5.0)]
    quick, slow = nn.BatchNorm2d(3, momentum=0.4), nn.BatchNorm2d(3)
    network = nn.Sequential(quick, nn.Dropout(0.5)).eval()
    recompute_statistics(network, batches)
    mean = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in batches]).mean(dim=0)
    variance = torch.stack([batch.var(dim=(0, 2, 3)) for batch in batches]).mean(dim=0)
    torch.testing.assert_close(quick.running_mean, mean)
    torch.testing.assert_close(quick.running_var, variance)
    assert quick.momentum == 0.4
    assert not any(module.training for module in network.modules())

    def unread() -> Any:
        raise AssertionError
        yield

    recompute_statistics(nn.Sequential(slow), unread())
    assert torch.equal(slow.running_mean, torch.zeros(3))  # type: ignore[arg-type]


@pytest.mark.parametrize(("images", "looked_at"), [(64, 64), (600, 512), (12_800, 1_280), (60_000, 2_048)])
def test_statistics_are_of_a_tenth_of_the_training_images_within_bounds(images: int, looked_at: int) -> None:
    split = Split(np.zeros((images, 2, 2, 3), np.uint8), np.zeros(images, np.int64), ("",) * images)
    train = ResidentImages(split, torch.device("cpu"))
    assert sum(len(batch) for batch in plain_batches(train, lambda pixels: pixels, 0)) == looked_at


AIRBENCH: dict[str, Any] = {
    "models": {"airbench": {"timm": "airbench94", "args": {"widths": [8, 8, 8]}}},
    "recipe": {"augment": {"flip": 0.0, "translate": 0.0}, "batch_size": 8},
}


def trained(settings: Settings, info: DatasetInfo) -> FinishedTraining:
    splits = (read_split(PREPARED, "train"), read_split(PREPARED, "val"))
    with open_checkpoint("statistics") as checkpoint:
        job = prepare_contestant(settings, "airbench", info, splits, quiet=True)
        return train_contestant(job, checkpoint, lambda _: None)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_what_is_validated_and_kept_has_statistics_of_its_own_weights(
    make_settings: Callable[..., Settings], prepared: DatasetInfo, devices: int, ema_decay: float | None
) -> None:
    settings = make_settings(merge(AIRBENCH, {"train": {"devices": devices}, "recipe": {"ema_decay": ema_decay}}))
    model = trained(settings, prepared).model
    norms = [module for module in model.network.modules() if isinstance(module, nn.BatchNorm2d)]
    seen: list[Tensor] = []
    norms[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.no_grad():
        model(torch.from_numpy(read_split(PREPARED, "train").images.copy()))
    torch.testing.assert_close(norms[0].running_mean, seen[0].mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norms[0].running_var, seen[0].var(dim=(0, 2, 3)))
