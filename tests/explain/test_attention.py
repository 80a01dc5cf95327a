import math
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.explain.attention import (
    attention_distance,
    attention_rollout,
    attention_weights,
    explain_attention,
    patch_distances,
)

SMALL = {"img_size": 32, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 5}
VITS: dict[str, dict[str, Any]] = {
    "class token": {"patch_size": 8},
    "mean of patches": {"patch_size": 4, "global_pool": "avg", "class_token": False},
    "registers": {"patch_size": 16, "reg_tokens": 4},
    "norm of queries and keys": {"patch_size": 8, "qk_norm": True},
}


def sharpened(network: nn.Module) -> nn.Module:
    """Untrained attention is all but even, and would hide mistakes."""
    torch.manual_seed(0)
    for name, parameter in network.named_parameters():
        if "qkv" in name:
            nn.init.normal_(parameter, std=0.5)
    return network.eval()


def vit(**arguments: Any) -> nn.Module:
    return sharpened(timm.create_model("vit_tiny_patch16_224", **SMALL, **arguments))


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def inputs_and_outputs(network: nn.Module, pixels: Tensor) -> list[tuple[Tensor, Tensor]]:
    seen: list[tuple[Tensor, Tensor]] = []
    for block in network.blocks:
        block.attn.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    with torch.no_grad():
        network(pixels)
    return seen


@pytest.mark.parametrize("arguments", VITS.values(), ids=VITS.keys())
def test_weights_times_values_are_the_output_of_the_attention_module(arguments: dict[str, Any]) -> None:
    network, pixels = vit(**arguments), images()
    weights = attention_weights(network, pixels)
    assert len(weights) == 3
    for block, attention, (tokens, output) in zip(
        network.blocks, weights, inputs_and_outputs(network, pixels), strict=True
    ):
        module = block.attn
        values = module.qkv(tokens).reshape(*tokens.shape[:2], 3, module.num_heads, -1)[:, :, 2].transpose(1, 2)
        mixed = (attention @ values).transpose(1, 2).flatten(2)
        torch.testing.assert_close(module.proj(mixed), output, atol=1e-5, rtol=0)
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
        assert attention.std() > 0.05  # the check would mean little for even attention


@pytest.mark.parametrize(
    ("name", "patch_size"),
    [("vit_tiny_patch16_224", 8), ("eva02_tiny_patch14_224", 4), ("beit_base_patch16_224", 8)],
    ids=["plain", "rotary embedding", "relative position bias"],
)
def test_weights_are_those_of_the_network_without_the_fused_function(name: str, patch_size: int) -> None:
    network = sharpened(timm.create_model(name, patch_size=patch_size, **SMALL))
    fused = attention_weights(network, images())
    unfused: list[Tensor] = []
    for block in network.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, inputs, __: unfused.append(inputs[0]))
    with torch.no_grad():
        network(images())
    torch.testing.assert_close(fused, unfused, atol=1e-5, rtol=0)


def test_recording_changes_neither_the_output_nor_the_network() -> None:
    network = vit(patch_size=8)
    with torch.no_grad():
        before = network(images())
    attention_weights(network, images())
    with torch.no_grad():
        assert torch.equal(network(images()), before)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_heads_are_read_from_the_class_token() -> None:
    network, pixels = vit(patch_size=8, reg_tokens=4), images()
    attention = explain_attention(network, pixels)
    last = attention_weights(network, pixels)[-1]
    assert attention.from_class_token
    torch.testing.assert_close(torch.from_numpy(attention.heads), last[:, :, 0, 5:].reshape(2, 2, 4, 4))


@pytest.mark.parametrize("arguments", [{"class_token": False}, {"class_token": True}])
def test_heads_are_read_from_all_patches_where_the_answer_is_their_mean(arguments: dict[str, Any]) -> None:
    network, pixels = vit(patch_size=8, global_pool="avg", **arguments), images()
    attention = explain_attention(network, pixels)
    prefix = network.num_prefix_tokens
    last = attention_weights(network, pixels)[-1][:, :, prefix:, prefix:]
    assert not attention.from_class_token
    torch.testing.assert_close(torch.from_numpy(attention.heads), last.mean(dim=2).reshape(2, 2, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "grid"),
    [
        (VITS["class token"], 4),
        (VITS["mean of patches"], 8),
        (VITS["registers"], 2),
        ({"patch_size": 8, "global_pool": "map", "class_token": False}, 4),
    ],
)
def test_shapes_of_an_explanation(arguments: dict[str, Any], grid: int) -> None:
    attention = explain_attention(vit(**arguments), images(3))
    assert attention.heads.shape == (3, 2, grid, grid)
    assert attention.rollout.shape == (3, grid, grid)
    assert [block.shape for block in attention.distance] == [(2,)] * 3
    assert all(0 < distance < 32 * math.sqrt(2) for block in attention.distance for distance in block)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {"channels": (8, 8, 8, 8)}),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)},
        ),
        ("vit_dlittle_patch16_reg1_gap_256", {"patch_size": 8, **SMALL}),
        ("pvt_v2_b0", {}),
    ],
    ids=["convolutions", "windows", "two attentions in a block", "pooled keys"],
)
def test_a_network_without_one_attention_over_the_whole_image_says_so(name: str, arguments: dict[str, Any]) -> None:
    network = timm.create_model(name, **arguments).eval()
    with pytest.raises(NotApplicableError, match="attention distance are skipped"):
        explain_attention(network, images(1))


def test_rollout_multiplies_from_the_first_block_to_the_last() -> None:
    first = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).expand(1, 3, 2, 2)
    last = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).expand(1, 3, 2, 2)
    by_hand = torch.tensor([[0.75, 0.25], [0.5, 0.5]]) @ torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    torch.testing.assert_close(attention_rollout([first, last])[0], by_hand)


def test_rollout_averages_the_heads() -> None:
    heads = torch.stack([torch.eye(2), torch.tensor([[0.0, 1.0], [1.0, 0.0]])])[None]
    torch.testing.assert_close(attention_rollout([heads])[0], torch.tensor([[0.75, 0.25], [0.25, 0.75]]))


@given(blocks=st.integers(1, 5), heads=st.integers(1, 3), tokens=st.integers(1, 9), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_rollout_is_a_distribution_over_the_tokens(blocks: int, heads: int, tokens: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(2, heads, tokens, tokens, generator=generator).softmax(-1) for _ in range(blocks)]
    rollout = attention_rollout(weights)
    assert (rollout >= 0).all()
    torch.testing.assert_close(rollout.sum(-1), torch.ones(2, tokens))


def test_distances_between_patches_are_in_pixels() -> None:
    distances = patch_distances(grid=2, input_size=32)
    diagonal = 16 * math.sqrt(2)
    torch.testing.assert_close(distances[0], torch.tensor([0, 16, 16, diagonal]))
    torch.testing.assert_close(distances[1], torch.tensor([16, 0, diagonal, 16]))


def test_attention_distance_of_what_is_known() -> None:
    distances = patch_distances(grid=4, input_size=32)
    itself = torch.eye(16)
    neighbour = torch.eye(16)[torch.arange(16) ^ 1]
    evenly = torch.full((16, 16), 1 / 16)
    leaking = neighbour * 0.1  # nine tenths go to tokens that have no place in the image
    weights = torch.stack([itself, neighbour, evenly, leaking])[None].expand(2, 4, 16, 16)
    expected = torch.tensor([0.0, 8.0, float(distances.mean()), 8.0])
    torch.testing.assert_close(attention_distance(weights, distances), expected)
