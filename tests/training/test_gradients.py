"""Gradients summed over parts of a batch, class balance, a frozen backbone, and gradient checkpointing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric import Fabric
from sklearn.utils.class_weight import compute_sample_weight
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional

from vit_vs_cnn.config.recipe import OptimizerSettings, Recipe
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.data.dataset import DatasetInfo, Split, read_split
from vit_vs_cnn.data.loader import ResidentImages
from vit_vs_cnn.training.checkpoint import open_checkpoint
from vit_vs_cnn.training.contestant import FinishedTraining, prepare_contestant, train_contestant
from vit_vs_cnn.training.gradients import Gradients, balanced_weights

Make = Callable[..., Settings]


def train(
    settings: Settings, info: DatasetInfo, contestant: str = "vit", train_split: Split | None = None
) -> FinishedTraining:
    splits = (train_split or read_split(PREPARED, "train"), read_split(PREPARED, "val"))
    job = prepare_contestant(settings, contestant, info, splits, quiet=True)
    with open_checkpoint("gradients") as checkpoint:
        return train_contestant(job, checkpoint, lambda _: None)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=50))
def test_balanced_weights_are_scikit_learn_s(labels: list[int]) -> None:
    weights = balanced_weights(np.array(labels), 5)
    expected = torch.from_numpy(compute_sample_weight("balanced", labels)).float()
    torch.testing.assert_close(weights[labels], expected)


@pytest.mark.parametrize("micro_batch", [None, 3, 1])
@pytest.mark.parametrize("soft", [False, True])
def test_a_weighted_loss_does_not_depend_on_the_parts(soft: bool, micro_batch: int | None) -> None:
    torch.manual_seed(0)
    fabric, network = Fabric(accelerator="cpu", devices=1), nn.Linear(6, 4)
    inputs, labels = torch.randn(8, 6), torch.arange(8) % 4
    targets = functional.one_hot(labels, 4).float().roll(1, 0) * 0.3 + functional.one_hot(labels, 4) * 0.7
    weights = torch.tensor([0.5, 1.0, 2.0, 0.1])
    recipe = Recipe(batch_size=8, micro_batch=micro_batch, label_smoothing=0.1, optimizer=OptimizerSettings())
    gradients = Gradients(fabric, network, torch.optim.SGD(network.parameters(), 0.1), recipe, weights, "")
    logits, loss = gradients.compute(inputs, targets if soft else labels)
    smooth = (targets if soft else functional.one_hot(labels, 4)) * 0.9 + 0.1 / 4
    of_images = (targets if soft else functional.one_hot(labels, 4).float()) @ weights
    expected = -(of_images * (smooth * network(inputs).log_softmax(dim=1)).sum(dim=1)).mean()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(logits, network(inputs).detach())
    (expected_gradient,) = torch.autograd.grad(expected, [network.weight])
    torch.testing.assert_close(network.weight.grad, expected_gradient)


def test_a_sampler_draws_rare_classes_as_often_as_others() -> None:
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    images = ResidentImages(Split(np.zeros((1000, 1, 1, 3), np.uint8), labels, ("",) * 1000), torch.device("cpu"))
    drawn = torch.cat(
        [
            batch
            for _, batch, _ in images.shuffled(
                100, torch.Generator().manual_seed(0), class_weights=balanced_weights(labels, 3)
            )
        ]
    )
    assert len(drawn) == 1000
    assert torch.bincount(drawn).tolist() == pytest.approx([333, 333, 333], abs=60)


@pytest.mark.parametrize("balance", ["weights", "sampler"])
def test_balance_finds_a_rare_class_that_is_missed_without(
    make_settings: Make, prepared: DatasetInfo, balance: str
) -> None:
    whole = read_split(PREPARED, "train")
    kept = np.flatnonzero((whole.labels != 1) | (np.arange(len(whole)) < 3))
    rare = Split(whole.images[kept], whole.labels[kept], tuple(whole.names[place] for place in kept))
    recall = {}
    for choice in ("none", balance):
        settings = make_settings({"recipe": {"balance": choice}, "train": {"epochs": 4}})
        recall[choice] = train(settings, prepared, train_split=rare).history[-1].val_balanced_accuracy
    assert recall[balance] > recall["none"] + 0.2


def test_parts_begin_with_the_size_that_the_recipe_says(
    make_settings: Make, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, sizes = VisionTransformer.forward, set()

    def watched(network: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
        if network.training:
            sizes.add(len(images))
        return forward(network, images)

    monkeypatch.setattr(VisionTransformer, "forward", watched)
    train(make_settings({"recipe": {"micro_batch": 6}}), prepared)
    assert sizes == {6, 4}  # 16 images are 6, 6 and 4


def test_in_the_first_epochs_the_classifier_alone_is_trained(make_settings: Make, prepared: DatasetInfo) -> None:
    overlay: dict[str, Any] = {"models": {"resnet": {"recipe": {"head_epochs": 1}}}}
    weights = {}
    for epochs in (1, 2):
        settings = make_settings({**overlay, "train": {"epochs": epochs}})
        weights[epochs] = train(settings, prepared, "resnet").last.network.state_dict()
    torch.manual_seed(0)
    splits = (read_split(PREPARED, "train"), read_split(PREPARED, "val"))
    before = prepare_contestant(settings, "resnet", prepared, splits).network.state_dict()
    changed = {
        epochs: {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
        for epochs, after in weights.items()
    }
    assert changed[1] == {"fc.weight", "fc.bias"}
    assert changed[2] == set(before)


@pytest.mark.parametrize("frozen", [{"freeze_backbone": True}, {"recipe": {"head_epochs": 2}}])
def test_of_a_distilled_network_both_classifiers_alone_are_trained(
    make_settings: Make, prepared: DatasetInfo, frozen: dict[str, Any]
) -> None:
    settings = make_settings({"models": {"vit": {"timm": "deit_tiny_distilled_patch16_224", **frozen}}})
    splits = (read_split(PREPARED, "train"), read_split(PREPARED, "val"))
    before = prepare_contestant(settings, "vit", prepared, splits).network.state_dict()
    after = train(settings, prepared).last.network.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}


@pytest.mark.parametrize("contestant", ["vit", "resnet"])
def test_gradient_checkpointing_changes_no_weight_or_statistic_and_ends_with_the_training(
    make_settings: Make, prepared: DatasetInfo, contestant: str
) -> None:
    results = []
    for checkpointed in (False, True):
        overlay = {
            "train": {"checkpoint_gradients": checkpointed},
            "models": {"vit": {"args": {"proj_drop_rate": 0.1}}},
        }
        results.append(train(make_settings(overlay), prepared, contestant).model.network)
    for name, tensor in results[0].state_dict().items():
        torch.testing.assert_close(results[1].state_dict()[name], tensor)
    assert results[1].grad_checkpointing is False


def test_an_architecture_that_cannot_checkpoint_is_one_sentence(make_settings: Make, prepared: DatasetInfo) -> None:
    overlay = {"train": {"checkpoint_gradients": True}, "models": {"airbench": {"timm": "airbench94"}}}
    with pytest.raises(UserError, match=r"train\.checkpoint_gradients: .* models\.airbench\.timm does not support it"):
        train(make_settings(overlay), prepared, "airbench")
