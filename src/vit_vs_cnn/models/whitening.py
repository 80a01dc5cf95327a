"""A frozen first convolution whose outputs are uncorrelated on the training images, before anything is learned."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

# Below this variance, on the scale of normalised pixels, a direction is noise and is not blown up.
_LEAST_VARIANCE = 5e-4
_IMAGES = 5_000


class WhitenedPatches(nn.Conv2d):
    """Patches of `side` pixels along the principal axes of the training patches, each at unit variance, and negated.

    Jordan 2024 (arXiv 2404.00498), section 3.2: (N, C, H, W) to (N, 2 · C · side², H − side + 1, W − side + 1). Only
    the bias is trained. Until `fit` the axes are random ones.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__(channels, 2 * channels * side**2, kernel_size=side)
        self.weight.requires_grad_(False)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def fit(self, pixels: Tensor) -> None:
        """Set the axes from normalised `pixels`, float32 (N, C, H, W)."""
        patches = functional.unfold(pixels, self.kernel_size).transpose(1, 2).flatten(0, 1)
        variances, axes = torch.linalg.eigh(patches.T @ patches / len(patches))
        scaled = (axes / (variances + _LEAST_VARIANCE).sqrt()).T.reshape(-1, *self.weight.shape[1:])
        self.weight.copy_(torch.cat((scaled, -scaled)))


def fit_whitening(network: nn.Module, images: NDArray[np.uint8], preprocess: nn.Module) -> None:
    """Fit the whitening layers of `network`, if there are any, to at most 5,000 of `images`, uint8 (N, H, W, 3)."""
    layers = [module for module in network.modules() if isinstance(module, WhitenedPatches)]
    if layers:
        some = images[:: math.ceil(len(images) / _IMAGES)]
        pixels = preprocess(torch.from_numpy(np.ascontiguousarray(some)))
        for layer in layers:
            layer.fit(pixels)
