"""Layers whose outputs are maps over the image, recognised by their shape and not by their architecture."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MapLayer:
    """A layer and its output as maps (N, C, G, G); `tokens` where the layer itself gives (N, L, C)."""

    name: str
    module: nn.Module
    maps: Tensor
    tokens: bool

    @property
    def grid(self) -> int:
        """Positions along one side of the map."""
        return self.maps.shape[-1]


def prefix_tokens(network: nn.Module) -> int:
    """The number of tokens before those of the patches: class token, distillation token, registers."""
    return int(getattr(network, "num_prefix_tokens", 0))


def reads_class_token(network: nn.Module) -> bool:
    """Whether the answer of `network` is read from its class token; other transformers pool the patches."""
    return prefix_tokens(network) > 0 and getattr(network, "global_pool", None) == "token"


def as_maps(output: object, prefix: int) -> Tensor | None:
    """The output of a layer as (N, C, G, G), or None where it is not a map over a square image.

    Takes (N, C, G, G), (N, G, G, C) and tokens (N, L, C). Where C = G, (N, C, G, G) is assumed.
    The first `prefix` tokens are dropped if they are there: some networks add them late or do not embed their
    position.
    """
    if not isinstance(output, Tensor):
        return None
    if output.ndim == 3:
        for dropped in (prefix, 0):
            patches = output[:, dropped:]
            grid = math.isqrt(patches.shape[1])
            if grid > 0 and grid**2 == patches.shape[1]:
                return patches.movedim(-1, 1).reshape(len(output), -1, grid, grid)
    elif output.ndim == 4 and output.shape[2] == output.shape[3]:
        return output
    elif output.ndim == 4 and output.shape[1] == output.shape[2]:
        return output.movedim(-1, 1)
    return None


def run_with_outputs(
    network: nn.Module, pixels: Tensor, modules: Mapping[str, nn.Module]
) -> tuple[Tensor, dict[str, Any]]:
    """Logits of `network` for `pixels` (N, 3, S, S), and the outputs of `modules` in the order of computation."""
    outputs: dict[str, Any] = {}
    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: outputs.update({name: output}))
        for name, module in modules.items()
    ]
    try:
        return network(pixels), outputs
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def maps_of(network: nn.Module, pixels: Tensor, modules: Mapping[str, nn.Module]) -> list[MapLayer]:
    """Those of `modules` that give maps of `pixels` (N, 3, S, S), in the order of computation."""
    prefix = prefix_tokens(network)
    layers = []
    for name, output in run_with_outputs(network, pixels, modules)[1].items():
        maps = as_maps(output, prefix)
        if isinstance(output, Tensor) and maps is not None and len(maps) == len(pixels):
            layers.append(MapLayer(name, modules[name], maps, tokens=output.ndim == 3))
    return layers


def map_layers(network: nn.Module, pixels: Tensor) -> list[MapLayer]:
    """The stages or blocks of `network` that give maps of `pixels` (N, 3, S, S), in the order of computation.

    They are those that timm lists in `feature_info`; without such a list, the last layer of each resolution.
    """
    modules = dict(network.named_modules())
    listed = [info["module"] for info in getattr(network, "feature_info", None) or ()]
    stages = maps_of(network, pixels, {name: modules[name] for name in listed if name in modules})
    if stages:
        return stages
    shallow = {name: module for name, module in modules.items() if name and name.count(".") < 2}
    return list({layer.grid: layer for layer in maps_of(network, pixels, shallow)}.values())
