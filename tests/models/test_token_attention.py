import pytest
import torch
from torch import nn

from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.models.attention import unfused_attention
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.training.device import fastest_attention

SMALL = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def fused_layers(network: nn.Module) -> int:
    return sum(getattr(module, "fused_attn", False) is True for module in network.modules())


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
def test_the_results_are_the_same_and_afterwards_attention_is_fused_again(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(ModelSettings(timm=name, args=SMALL), 10, 32).eval()
    pixels, layers = torch.rand(2, 3, 32, 32), fused_layers(network)
    fused = network(pixels)
    with unfused_attention(network):
        assert fused_layers(network) == 0
        torch.testing.assert_close(network(pixels), fused)
    assert fused_layers(network) == layers == 2


def test_it_is_fused_again_after_an_error() -> None:
    network = create_model(ModelSettings(timm="vit_tiny_patch16_224"), 10, 32)
    with pytest.raises(KeyError), unfused_attention(network):
        raise KeyError
    assert fused_layers(network) == 12


@pytest.mark.parametrize(
    ("device", "precision", "fused"), [("cpu", "bf16-mixed", 0), ("cpu", "32-true", 12), ("cuda", "bf16-mixed", 12)]
)
def test_only_where_the_fused_kernel_is_slow_is_it_left_out(device: str, precision: str, fused: int) -> None:
    network = create_model(ModelSettings(timm="vit_tiny_patch16_224"), 10, 32)
    with fastest_attention(network, torch.device(device), precision):  # type: ignore[arg-type]
        assert fused_layers(network) == fused
