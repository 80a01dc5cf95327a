"""What a network has learned to see: first filters, position embeddings, feature maps."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.explain.layers import MapLayer, map_layers, patch_grid, prefix_tokens

_MOST_FILTERS = 64
_COMPONENTS = 28  # as many as in the ViT paper
_MOST_STAGES = 5
_CHANNELS = 6


@dataclass(frozen=True)
class Filters:
    """`pictures` uint8 (K, h, w, 3) of `total` filters in layer `name`, or of their principal components."""

    pictures: NDArray[np.uint8]
    name: str
    total: int
    components: bool


@dataclass(frozen=True)
class StageMaps:
    """The maps float32 (K, G, G) of the `channels` (K,) that vary most over the image, of `total` in `name`."""

    name: str
    maps: NDArray[np.float32]
    channels: tuple[int, ...]
    total: int


def first_filters(network: nn.Module) -> Filters:
    """The filters of the convolution that reads the pixels, which in a transformer embeds the patches.

    More than 64 are shown by their first 28 principal components, as in figure 7 of Dosovitskiy et al. 2020
    (arXiv 2010.11929). Grey is zero. Raises NotApplicableError where no convolution reads the pixels.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and max(module.kernel_size) > 1:
            return _filters(name, module.weight.detach())
    raise NotApplicableError("First filters are left out: no convolution of this network reads the pixels.")


def position_similarity(network: nn.Module) -> NDArray[np.float32]:
    """Cosine similarity float32 (G, G, G, G) of the position embedding of each patch with those of all patches.

    Dosovitskiy et al. 2020 (arXiv 2010.11929), figure 7. Raises NotApplicableError without an embedding per patch.
    """
    embedding = getattr(network, "pos_embed", None)
    patches = None
    if isinstance(embedding, Tensor) and embedding.ndim == 3 and len(embedding) == 1:
        patches = patch_grid(embedding.detach(), prefix_tokens(network))
    if patches is None:
        raise NotApplicableError(
            "Similarity of position embeddings is left out: this network has no table of them, one for each patch."
        )
    unit = functional.normalize(patches[0], dim=-1)
    return torch.einsum("ijc,klc->ijkl", unit, unit).numpy()


def feature_maps(network: nn.Module, pixels: Tensor) -> list[StageMaps]:
    """Maps of one image, `pixels` (1, 3, S, S), in at most five stages or blocks from first to last.

    Raises NotApplicableError where no layer gives a map of more than one position.
    """
    stages = [layer for layer in map_layers(network, pixels) if layer.grid > 1]
    if not stages:
        raise NotApplicableError("Feature maps are left out: no layer of this network gives a map over the image.")
    shown = np.linspace(0, len(stages) - 1, min(_MOST_STAGES, len(stages))).round().astype(int)
    return [_most_varied(stages[i]) for i in shown]


def _filters(name: str, weights: Tensor) -> Filters:
    total = len(weights)
    if total > _MOST_FILTERS:
        weights = _principal_components(weights.flatten(1), _COMPONENTS).reshape(-1, *weights.shape[1:])
    largest = weights.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    pictures = (127.5 + 127.5 * weights / largest).round().to(torch.uint8).permute(0, 2, 3, 1)
    return Filters(pictures.numpy(), name, total, components=total > _MOST_FILTERS)


def _most_varied(layer: MapLayer) -> StageMaps:
    maps = layer.maps[0]
    channels = maps.flatten(1).std(dim=1).argsort(descending=True, stable=True)[:_CHANNELS]
    return StageMaps(layer.name, maps[channels].numpy(), tuple(channels.tolist()), len(maps))


def _principal_components(rows: Tensor, count: int) -> Tensor:
    """The first principal directions (count, D) of `rows` (N, D), each with its largest entry positive."""
    directions: Tensor = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False).Vh[:count]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return directions * largest.sign()
