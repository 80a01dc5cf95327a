"""Self-attention as the network computes it: weights, rollout, and the distance over which it reaches."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.explain.layers import prefix_tokens, reads_class_token


@dataclass(frozen=True)
class Attention:
    """The attention of a transformer to N images of G×G patches.

    `heads` float32 (N, heads, G, G) is the last block's attention to each patch, from the class token or, where the
    network pools the patches, averaged over all patches; `rollout` float32 (N, G, G) is the same over all blocks.
    `distance` has one float32 (heads,) per block, in pixels of the network's input; `even_distance` is that of
    attention spread evenly over the image.
    """

    heads: NDArray[np.float32]
    rollout: NDArray[np.float32]
    distance: tuple[NDArray[np.float32], ...]
    even_distance: float
    from_class_token: bool


class _Recorder(TorchFunctionMode):
    """Records the weights of every scaled dot-product attention that runs inside it.

    timm calls torch's fused function, which never holds softmax(q·kᵀ·scale) in memory: there is nothing to hook,
    and the dropout layer of the module is not even called. With the identity matrix in place of the values, the same
    function on the same arguments gives the weights themselves, with the network's own norms, scale, rotary
    embedding and mask.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is functional.scaled_dot_product_attention:
            self._record(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _record(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> None:
        tokens = value.shape[-2]
        identity = torch.eye(tokens, dtype=value.dtype, device=value.device).expand(*value.shape[:-1], tokens)
        self.weights.append(functional.scaled_dot_product_attention(query, key, identity, *args, **kwargs))


@torch.no_grad()
def attention_weights(network: nn.Module, pixels: Tensor) -> list[Tensor]:
    """Attention of `network` on `pixels` (N, 3, S, S): one (N, heads, queries, keys) per call, rows sum to 1."""
    recorder = _Recorder()
    with recorder:
        network(pixels)
    return recorder.weights


def attention_rollout(weights: Sequence[Tensor]) -> Tensor:
    """Attention (N, L, L) from the last block's tokens to the first one's, for `weights` (N, heads, L, L) per block.

    Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers" (arXiv 2005.00928): heads are averaged, the
    residual connection counts as half of each block, and blocks multiply.
    """
    identity = torch.eye(weights[0].shape[-1])
    flow = identity
    for block in weights:
        flow = (0.5 * block.mean(dim=1) + 0.5 * identity) @ flow
    return flow


def patch_distances(grid: int, input_size: int) -> Tensor:
    """Distances (G², G²) in pixels between the centres of the patches of a G×G grid over the input."""
    axis = (torch.arange(grid) + 0.5) * (input_size / grid)
    centres = torch.cartesian_prod(axis, axis)
    return torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")


def attention_distance(weights: Tensor, distances: Tensor) -> Tensor:
    """Mean distance (heads,) over which patches attend to patches, for `weights` (N, heads, G², G²).

    Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words" (arXiv 2010.11929), figures 7 and 11. `distances`
    (G², G²) are in pixels; attention to other tokens, which have no place in the image, does not count.
    """
    return (weights * distances).sum(dim=(0, 2, 3)) / weights.sum(dim=(0, 2, 3))


def explain_attention(network: nn.Module, pixels: Tensor) -> Attention:
    """Attention of `network` on `pixels` (N, 3, S, S).

    Raises NotApplicableError unless each block has one attention over all patches of the image.
    """
    prefix, size = prefix_tokens(network), pixels.shape[-1]
    from_class_token = reads_class_token(network)
    queries = slice(0, 1) if from_class_token else slice(prefix, None)
    heads, rollouts, by_block = [], [], []
    # One image at a time: the weights of all blocks of ViT-B with 8 px patches take 350 MB per image.
    for image in torch.split(pixels, 1):
        weights = attention_weights(network, image)
        # Attention pooling behind the blocks has a single query and is not a block.
        weights = weights[:-1] if weights and weights[-1].shape[2] == 1 else weights
        grid = _grid_of_patches(network, weights, prefix)
        distances = patch_distances(grid, size)
        heads.append(weights[-1][:, :, queries, prefix:].mean(dim=2).reshape(1, -1, grid, grid))
        rollouts.append(attention_rollout(weights)[:, queries, prefix:].mean(dim=1).reshape(1, grid, grid))
        by_block.append([attention_distance(block[:, :, prefix:, prefix:], distances) for block in weights])
    return Attention(
        heads=torch.cat(heads).numpy(),
        rollout=torch.cat(rollouts).numpy(),
        distance=tuple(torch.stack(images).mean(dim=0).numpy() for images in zip(*by_block, strict=True)),
        even_distance=float(distances.mean()),
        from_class_token=from_class_token,
    )


def _grid_of_patches(network: nn.Module, weights: Sequence[Tensor], prefix: int) -> int:
    """Patches along one side of the image. Raises NotApplicableError unless each block has one attention over all."""
    tokens = weights[0].shape[-1] if weights else 0
    grid = math.isqrt(max(0, tokens - prefix))
    blocks = getattr(network, "blocks", weights)
    everywhere = all(block.shape[0] == 1 and block.shape[2:] == (tokens, tokens) for block in weights)
    if not everywhere or grid < 2 or grid**2 != tokens - prefix or len(blocks) != len(weights):
        raise NotApplicableError(
            "Attention per head, attention rollout and attention distance are skipped: they need one self-attention "
            "over all patches in each block, which convolutional networks and transformers with windows do not have."
        )
    return grid
