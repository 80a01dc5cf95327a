"""Layers whose activations are maps over the image, told by their shape and not by their architecture."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MapLayer:
    """A layer and its activations as maps (N, C, G, G); `tokens` where the layer itself gives (N, L, C)."""

    name: str
    module: nn.Module
    maps: Tensor
    tokens: bool

    @property
    def grid(self) -> int:
        """Positions along one side of the map."""
        return self.maps.shape[-1]


def prefix_tokens(network: nn.Module) -> int:
    """Tokens before those of the patches: class token, distillation token, registers."""
    return int(getattr(network, "num_prefix_tokens", 0))


def patch_grid(tokens: Tensor, prefix: int) -> Tensor | None:
    """Tokens (N, L, C) as (N, G, G, C), or None where their number is no square.

    The first `prefix` are dropped, if they are there: some networks add them late, or do not embed their position.
    """
    for skipped in (prefix, 0):
        patches = tokens[:, skipped:]
        grid = math.isqrt(patches.shape[1])
        if grid > 0 and grid**2 == patches.shape[1]:
            return patches.reshape(len(tokens), grid, grid, -1)
    return None


def as_maps(activation: object, prefix: int) -> Tensor | None:
    """An activation as (N, C, G, G), or None where it is no map over a square image.

    Takes (N, C, G, G), (N, G, G, C) and, without its first `prefix` tokens, (N, L, C). Where all three sizes are
    equal, (N, C, G, G) is meant.
    """
    if not isinstance(activation, Tensor):
        return None
    if activation.ndim == 3:
        patches = patch_grid(activation, prefix)
        return None if patches is None else patches.movedim(-1, 1)
    if activation.ndim == 4 and activation.shape[2] == activation.shape[3]:
        return activation
    if activation.ndim == 4 and activation.shape[1] == activation.shape[2]:
        return activation.movedim(-1, 1)
    return None


@torch.no_grad()
def map_layers(network: nn.Module, pixels: Tensor) -> list[MapLayer]:
    """The stages or blocks of `network` that give maps of `pixels` (N, 3, S, S), in the order of computation.

    They are those that timm lists in `feature_info`; without such a list, the last layer of each resolution.
    """
    modules = dict(network.named_modules())
    listed = {info["module"]: modules[info["module"]] for info in _feature_info(network) if info["module"] in modules}
    stages = _run(network, pixels, listed)
    if stages:
        return stages
    shallow = {name: module for name, module in modules.items() if name and name.count(".") < 2}
    return list({layer.grid: layer for layer in _run(network, pixels, shallow)}.values())


def _feature_info(network: nn.Module) -> list[dict[str, str]]:
    return list(getattr(network, "feature_info", None) or ())


def _run(network: nn.Module, pixels: Tensor, modules: Mapping[str, nn.Module]) -> list[MapLayer]:
    prefix = prefix_tokens(network)
    found: dict[str, MapLayer] = {}

    def keep(name: str, module: nn.Module, output: object) -> None:
        maps = as_maps(output, prefix)
        if isinstance(output, Tensor) and maps is not None and len(maps) == len(pixels):
            found[name] = MapLayer(name, module, maps, tokens=output.ndim == 3)

    handles = [
        module.register_forward_hook(lambda module, _, output, name=name: keep(name, module, output))
        for name, module in modules.items()
    ]
    try:
        network(pixels)
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())
