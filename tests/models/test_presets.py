"""The contestants of params.yaml and of the presets are what their names say."""

from collections.abc import Callable

import pytest
import torch
from timm.layers import Attention
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from factories import REPOSITORY
from vit_vs_cnn.config.load import merged_params, preset_names, settings_of
from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.models.airbench import Airbench
from vit_vs_cnn.models.build import check_model, create_model


def is_vision_transformer(network: nn.Module) -> bool:
    """Whether one linear projection embeds the patches, and attention blocks do the rest."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return (
        isinstance(network, VisionTransformer)
        and len(convolutions) == 1
        and convolutions[0].kernel_size == convolutions[0].stride
        and all(isinstance(block.attn, Attention) for block in network.blocks)
    )


def is_hybrid(network: nn.Module) -> bool:
    """Whether convolutions embed the patches for attention blocks."""
    return (
        isinstance(network, VisionTransformer)
        and sum(isinstance(module, nn.Conv2d) for module in network.patch_embed.modules()) > 1
        and all(isinstance(block.attn, Attention) for block in network.blocks)
    )


def is_residual_network(network: nn.Module) -> bool:
    """Whether every stage has residual blocks."""
    if isinstance(network, Airbench):
        return all(group.residual for group in network.groups)
    stages = [getattr(network, f"layer{number}", None) for number in (1, 2, 3, 4)]
    return all(
        isinstance(stage, nn.Sequential)
        and len(stage) > 0
        and all(isinstance(block, BasicBlock | Bottleneck) for block in stage)
        for stage in stages
    )


KINDS: dict[str, Callable[[nn.Module], bool]] = {
    "vit": is_vision_transformer,
    "resnet": is_residual_network,
    "hybrid": is_hybrid,
    "airbench": lambda network: isinstance(network, Airbench),
}
CONTESTANTS = [
    pytest.param(contestant, model, settings.data.image_size, id=f"{preset or 'params.yaml'}-{contestant}")
    for preset in (None, *preset_names(REPOSITORY))
    for settings in [settings_of(merged_params(REPOSITORY, preset, []))]
    for contestant, model in settings.models.items()
]


@pytest.mark.parametrize(("contestant", "model", "image_size"), CONTESTANTS)
def test_contestants_are_what_their_names_say(contestant: str, model: ModelSettings, image_size: int) -> None:
    check_model(model, 10, image_size, f"models.{contestant}")
    with torch.device("meta"):
        network = create_model(model, 10, image_size)
    kinds = {kind for kind, fits in KINDS.items() if fits(network)}
    assert contestant in kinds
    # The larger of airbench's networks has residual blocks.
    assert kinds in ({contestant}, {"resnet", "airbench"})


def test_the_cpu_preset_compares_all_three_kinds() -> None:
    assert list(settings_of(merged_params(REPOSITORY, "cpu", [])).models) == ["vit", "resnet", "hybrid"]


@pytest.mark.parametrize("preset", [None, *preset_names(REPOSITORY)])
def test_every_recipe_can_be_tuned_as_the_report_proposes(preset: str | None) -> None:
    assert settings_of(merged_params(REPOSITORY, preset, ["tune.trials=20"])).tune.trials == 20


@pytest.mark.parametrize("preset", preset_names(REPOSITORY))
def test_contestants_from_random_weights_do_not_ask_for_pretrained_ones(preset: str) -> None:
    models = settings_of(merged_params(REPOSITORY, preset, [])).models
    assert all(model.pretrained == (preset == "matched") for model in models.values())
