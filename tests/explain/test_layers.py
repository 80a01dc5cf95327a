from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from vit_vs_cnn.explain.layers import as_maps, map_layers

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


class Plain(nn.Module):
    """A network that timm did not make."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.body = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2, padding=1))
        self.head = nn.Linear(6, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.stem(pixels)).mean(dim=(2, 3)))
        return logits


def test_activations_of_any_layout_become_the_same_maps() -> None:
    maps = torch.arange(2 * 5 * 9.0).reshape(2, 5, 3, 3)
    tokens = maps.flatten(2).transpose(1, 2)
    prefixed = torch.cat([torch.full((2, 4, 5), -1.0), tokens], dim=1)
    for activation, prefix in [(maps, 0), (maps.permute(0, 2, 3, 1), 1), (tokens, 0), (prefixed, 4), (tokens, 1)]:
        read = as_maps(activation, prefix)
        assert read is not None
        assert torch.equal(read, maps)


@pytest.mark.parametrize(
    "activation", [torch.zeros(2, 5), torch.zeros(2, 7, 5), torch.zeros(2, 5, 3, 4), (torch.zeros(2, 5, 3, 3),), None]
)
def test_what_is_no_map_is_none(activation: object) -> None:
    assert as_maps(activation, 0) is None


@pytest.mark.parametrize(
    ("name", "arguments", "shapes"),
    [
        ("resnet18", {"channels": (8, 16, 24, 32)}, [(64, 16), (8, 8), (16, 4), (24, 2), (32, 1)]),
        ("convnext_atto", {"dims": (8, 16, 24, 32)}, [(8, 8), (16, 4), (24, 2), (32, 1)]),
        ("swin_tiny_patch4_window7_224", SWIN, [(24, 16), (48, 8)]),
        ("vit_tiny_patch16_224", {**VIT, "reg_tokens": 4}, [(24, 4), (24, 4)]),
    ],
)
def test_stages_of_timm_networks(name: str, arguments: dict[str, Any], shapes: list[tuple[int, int]]) -> None:
    layers = map_layers(timm.create_model(name, **arguments).eval(), PIXELS)
    assert [tuple(layer.maps.shape) for layer in layers] == [(2, channels, grid, grid) for channels, grid in shapes]
    assert {layer.tokens for layer in layers} == {name.startswith("vit")}


def test_a_network_that_lists_no_stages_gives_the_last_layer_of_each_resolution() -> None:
    layers = map_layers(Plain().eval(), PIXELS)
    assert [(layer.name, layer.grid) for layer in layers] == [("body.1", 16), ("body", 8)]


def test_no_hook_stays_behind_a_failure() -> None:
    network = timm.create_model("vit_tiny_patch16_224", **VIT).eval()
    with pytest.raises(AssertionError):
        map_layers(network, torch.zeros(1, 3, 33, 33))
    assert not any(module._forward_hooks for module in network.modules())
