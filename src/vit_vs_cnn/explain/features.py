"""The learned features of a network: first filters, position embeddings, feature maps."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.explain.layers import as_maps, map_layers, prefix_tokens

_MOST_FILTERS = 64
_COMPONENTS = 28  # as many as in the ViT paper
_MOST_STAGES = 5
_CHANNELS = 6


@dataclass(frozen=True)
class Filters:
    """`images` uint8 (K, h, w, 3) of the `total` filters of layer `name`, or of their principal components."""

    images: NDArray[np.uint8]
    name: str
    total: int
    components: bool


@dataclass(frozen=True)
class StageMaps:
    """`maps` float32 (K, G, G) of the K `channels` of layer `name` that vary most over the image, of `total`."""

    name: str
    maps: NDArray[np.float32]
    channels: tuple[int, ...]
    total: int


def first_filters(network: nn.Module) -> Filters:
    """The filters of the convolution that reads the pixels; in a transformer it embeds the patches.

    More than 64 are shown by their first 28 principal components, as in figure 7 of Dosovitskiy et al. 2020
    (arXiv 2010.11929). Grey is zero. Raises NotApplicableError where no convolution reads the pixels.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels in (1, 3) and max(module.kernel_size) > 1:
            weights = module.weight.detach()
            total = len(weights)
            if total > _MOST_FILTERS:
                from sklearn.decomposition import PCA  # half a second

                pca = PCA(min(_COMPONENTS, weights[0].numel()), svd_solver="full").fit(weights.flatten(1).numpy())
                weights = torch.from_numpy(pca.components_).reshape(-1, *weights.shape[1:])
            largest = weights.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
            images = (127.5 + 127.5 * weights / largest).round().to(torch.uint8).permute(0, 2, 3, 1)
            return Filters(images.expand(-1, -1, -1, 3).numpy(), name, total, components=total > _MOST_FILTERS)
    raise NotApplicableError("First filters are skipped: no convolution of this network reads the pixels.")


def position_similarity(network: nn.Module) -> NDArray[np.float32]:
    """Cosine similarity float32 (G, G, G, G) of the position embedding of each patch with those of all patches.

    Dosovitskiy et al. 2020 (arXiv 2010.11929), figure 7. Raises NotApplicableError without an embedding per patch.
    """
    embedding = getattr(network, "pos_embed", None)
    is_table = isinstance(embedding, Tensor) and embedding.ndim == 3 and len(embedding) == 1
    patches = as_maps(embedding, prefix_tokens(network)) if is_table else None
    if patches is None:
        raise NotApplicableError(
            "Similarity of position embeddings is skipped: this network does not learn an embedding per patch."
        )
    unit = functional.normalize(patches[0].detach(), dim=0)
    return torch.einsum("cij,ckl->ijkl", unit, unit).numpy()


def feature_maps(network: nn.Module, pixels: Tensor) -> list[StageMaps]:
    """Maps of one image, `pixels` (1, 3, S, S), in at most five stages or blocks from first to last.

    Raises NotApplicableError where no layer gives a map of more than one position.
    """
    layers = [layer for layer in map_layers(network, pixels) if layer.grid > 1]
    if not layers:
        raise NotApplicableError("Feature maps are skipped: no layer of this network gives a map over the image.")
    shown = np.linspace(0, len(layers) - 1, min(_MOST_STAGES, len(layers))).round().astype(int)
    stages = []
    for layer in (layers[index] for index in shown):
        maps = layer.maps[0]
        channels = maps.flatten(1).std(dim=1).argsort(descending=True, stable=True)[:_CHANNELS]
        stages.append(StageMaps(layer.name, maps[channels].numpy(), tuple(channels.tolist()), len(maps)))
    return stages
