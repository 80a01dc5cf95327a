from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.explain.gradcam import cam_layer, grad_cam

PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
VIT = {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
NETWORKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "class token": ("vit_tiny_patch16_224", VIT, "blocks.1.norm1"),
    "mean": ("vit_tiny_patch16_224", {**VIT, "global_pool": "avg", "class_token": False}, "blocks.1"),
    "mean beside a class token": ("vit_tiny_patch16_224", {**VIT, "global_pool": "avg"}, "blocks.1"),
    "attention pooling": ("vit_tiny_patch16_224", {**VIT, "global_pool": "map", "class_token": False}, "blocks.1"),
    "registers": ("vit_tiny_patch16_224", {**VIT, "reg_tokens": 4}, "blocks.1.norm1"),
    "resnet": ("resnet18", {"channels": (8, 16, 24, 32), "num_classes": 5}, "layer2"),
    "convnext": ("convnext_atto", {"dims": (8, 16, 24, 32), "num_classes": 5}, "stages.1"),
    "swin": ("swin_tiny_patch4_window7_224", {**SWIN, "num_classes": 5}, "layers.1"),
}


class Colours(nn.Module):
    """Class k is as likely as there is much of colour k."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.AvgPool2d(4)
        self.weights = nn.Parameter(torch.eye(3))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.seen(pixels).mean(dim=(2, 3)) @ self.weights


class SquaredMaps(nn.Module):
    """Logits are weighted means of squared channels, so that the gradient differs between positions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maps = nn.Conv2d(3, 6, 8, stride=8)
        self.weights = nn.Parameter(torch.randn(5, 6))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.maps(pixels).square().mean(dim=(2, 3)) @ self.weights.T


def patches_of_colour(count: int) -> Tensor:
    """Red in the top left, green in the bottom right."""
    pixels = torch.zeros(count, 3, 32, 32)
    pixels[:, 0, :12, :12] = 1
    pixels[:, 1, 20:, 20:] = 1
    return pixels


def test_the_map_is_where_the_evidence_for_the_class_is() -> None:
    network, classes = Colours().eval(), [0] * 7 + [1] * 5
    pixels = patches_of_colour(len(classes))
    maps = grad_cam(network, pixels, classes, cam_layer(network, pixels))
    assert maps.shape == (12, 8, 8)
    for label, saliency in zip(classes, maps, strict=True):
        here, there = (saliency[:2, :2], saliency[6:, 6:])[:: 1 if label == 0 else -1]
        np.testing.assert_allclose(here, 1, atol=1e-3)
        np.testing.assert_allclose(there, 0, atol=1e-3)


def test_the_map_is_that_of_the_formula_computed_by_hand() -> None:
    network = SquaredMaps().eval()
    maps = grad_cam(network, PIXELS, [4, 1, 3], cam_layer(network, PIXELS))
    channels = network.maps(PIXELS).detach().numpy()
    weights = network.weights.detach().numpy()
    for image, label, saliency in zip(channels, [4, 1, 3], maps, strict=True):
        # The gradient of the logit, weight × mean of channel², by position is 2 × weight × channel / positions.
        mean_gradient = 2 * weights[label] * image.mean(axis=(1, 2)) / 16
        evidence = np.einsum("c,cij->ij", mean_gradient, image).clip(min=0)
        expected = (evidence - evidence.min()) / (evidence.max() - evidence.min())
        np.testing.assert_allclose(saliency, expected, atol=1e-5)


def test_a_class_without_evidence_has_an_empty_map() -> None:
    network, pixels = Colours().eval(), patches_of_colour(1)
    assert grad_cam(network, pixels, [2], cam_layer(network, pixels)).max() == 0


@pytest.mark.parametrize(("name", "arguments", "layer"), NETWORKS.values(), ids=NETWORKS.keys())
def test_networks_of_every_kind_have_a_map(name: str, arguments: dict[str, Any], layer: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, **arguments).eval()
    chosen = cam_layer(network, PIXELS)
    assert chosen.name == layer
    assert chosen.grid >= 4
    maps = grad_cam(network, PIXELS, [0, 1, 2], chosen)
    assert maps.shape == (3, chosen.grid, chosen.grid)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max() == pytest.approx(1, abs=1e-2)


def test_each_image_of_a_batch_has_the_map_it_has_alone() -> None:
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=5).eval()
    layer = cam_layer(network, PIXELS)
    together = grad_cam(network, PIXELS, [0, 1, 2], layer)
    alone = np.concatenate([grad_cam(network, PIXELS[i : i + 1], [i], layer) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_frozen_layers_do_not_stop_the_gradient_and_none_stays() -> None:
    torch.manual_seed(0)
    network = timm.create_model("resnet18", channels=(8, 16, 24, 32), num_classes=5).eval()
    network.requires_grad_(False)
    network.get_classifier().requires_grad_(True)
    layer = cam_layer(network, PIXELS)
    assert grad_cam(network, PIXELS, [0, 1, 2], layer).max() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    assert [parameter.requires_grad for parameter in network.parameters()].count(True) == 2
    assert not PIXELS.requires_grad


def test_a_failure_is_not_swallowed_and_leaves_no_hook() -> None:
    network = timm.create_model("vit_tiny_patch16_224", **VIT).eval()
    with pytest.raises(IndexError):
        grad_cam(network, PIXELS, [0, 1, 99], cam_layer(network, PIXELS))
    assert not any(module._forward_hooks for module in network.modules())


def test_without_a_map_it_is_skipped() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    with pytest.raises(NotApplicableError, match="Grad-CAM is skipped"):
        cam_layer(network, PIXELS)
