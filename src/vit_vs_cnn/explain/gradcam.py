"""Grad-CAM: where the evidence for a class is, for any network with a layer that is a map over the image."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.explain.layers import (
    MapLayer,
    as_maps,
    map_layers,
    maps_of,
    prefix_tokens,
    reads_class_token,
    run_with_outputs,
)

_FINE_ENOUGH = 4


def cam_layer(network: nn.Module, pixels: Tensor) -> MapLayer:
    """The last layer that still resolves the image (4×4 or more), or the finest one; its maps are of one image.

    Where the answer is read from the class token, it is the norm before the last attention: behind it, nothing of the
    patches reaches that token. Raises NotApplicableError where no layer gives a map.
    """
    layers = map_layers(network, pixels[:1])
    fine = [layer for layer in layers if layer.grid >= _FINE_ENOUGH]
    chosen = fine[-1] if fine else max(reversed(layers), key=lambda layer: layer.grid, default=None)
    if chosen is None or chosen.grid < 2:
        raise NotApplicableError("Grad-CAM is skipped: no layer of this network gives a map over the image.")
    norm = getattr(chosen.module, "norm1", None)
    if chosen.tokens and reads_class_token(network) and isinstance(norm, nn.Module):
        return maps_of(network, pixels[:1], {f"{chosen.name}.norm1": norm})[0]
    return chosen


def grad_cam(network: nn.Module, pixels: Tensor, classes: Sequence[int], layer: MapLayer) -> NDArray[np.float32]:
    """Maps float32 (N, G, G) from 0 to 1 of the evidence for `classes` (one per image) in `pixels` (N, 3, S, S).

    Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization"
    (arXiv 1610.02391): the channels of the layer, weighted by their mean gradient of the class's logit.
    """
    prefix, maps = prefix_tokens(network), []
    for image, label in zip(torch.split(pixels, 1), classes, strict=True):
        # Frozen layers pass on a gradient only if the image itself asks for one.
        logits, outputs = run_with_outputs(network, image.clone().requires_grad_(), {layer.name: layer.module})
        output: Tensor = outputs[layer.name]
        (gradient,) = torch.autograd.grad(logits[0, label], output)
        channels, gradients = as_maps(output.detach(), prefix), as_maps(gradient, prefix)
        assert channels is not None
        assert gradients is not None
        evidence = (gradients.mean(dim=(2, 3), keepdim=True) * channels).sum(dim=1)[0].relu()
        saliency = evidence - evidence.min()
        maps.append(saliency / saliency.max().clamp_min(torch.finfo(saliency.dtype).tiny))
    return torch.stack(maps).numpy()
