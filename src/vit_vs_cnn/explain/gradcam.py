"""Grad-CAM: where evidence for a class lies, for any network with a layer that is a map over the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.explain.layers import MapLayer, as_maps, map_layers, prefix_tokens

_FINE_ENOUGH = 4
_BATCH = 8


@dataclass(frozen=True)
class CamLayer:
    """The layer whose activations Grad-CAM weighs, its name and the positions along one side of its map."""

    name: str
    module: nn.Module
    grid: int


def cam_layer(network: nn.Module, pixels: Tensor) -> CamLayer:
    """The last layer that still resolves the image (4×4 or more), as coarse a map as it can be.

    In a transformer it is the norm before the last attention: behind it, nothing of the patches reaches the class
    token. Raises NotApplicableError where no layer gives a map.
    """
    layers = map_layers(network, pixels[:1])
    fine = [layer for layer in layers if layer.grid >= _FINE_ENOUGH]
    chosen = fine[-1] if fine else max(reversed(layers), key=lambda layer: layer.grid, default=None)
    if chosen is None or chosen.grid < 2:
        raise NotApplicableError("Grad-CAM is left out: no layer of this network gives a map over the image.")
    return _before_attention(chosen)


def grad_cam(network: nn.Module, pixels: Tensor, classes: Sequence[int], layer: CamLayer) -> NDArray[np.float32]:
    """Maps float32 (N, S, S) from 0 to 1 of the evidence for `classes` (one per image) in `pixels` (N, 3, S, S).

    Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization"
    (arXiv 1610.02391). The gradients of the parameters are gone afterwards.
    """
    prefix = prefix_tokens(network)
    targets = [ClassifierOutputTarget(label) for label in classes]
    cam = GradCAM(network, [layer.module], reshape_transform=lambda activation: as_maps(activation, prefix))
    # The library's own context manager would swallow an IndexError.
    try:
        maps = [
            # Frozen layers pass a gradient on only if the image itself asks for one.
            cam(part.clone().requires_grad_(), targets[start : start + _BATCH])
            for start, part in zip(range(0, len(pixels), _BATCH), torch.split(pixels, _BATCH), strict=True)
        ]
    finally:
        cam.activations_and_grads.release()
        network.zero_grad(set_to_none=True)
    return np.concatenate(maps)


def _before_attention(layer: MapLayer) -> CamLayer:
    norm = getattr(layer.module, "norm1", None)
    if layer.tokens and isinstance(norm, nn.Module):
        return CamLayer(f"{layer.name}.norm1", norm, layer.grid)
    return CamLayer(layer.name, layer.module, layer.grid)
