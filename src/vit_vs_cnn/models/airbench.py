"""The networks of airbench (Jordan 2024, arXiv 2404.00498) under timm names: small images, few epochs.

Sources of shapes and initialisation: the paper's section 3 and github.com/KellerJordan/cifar10-airbench.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

default_cfgs = generate_default_cfgs({"airbench94": {"classifier": "head"}, "airbench96": {"classifier": "head"}})

# Below this variance, on the scale of normalised pixels, a direction is noise and is not blown up.
_LEAST_VARIANCE = 5e-4
_FITTED_IMAGES = 5_000


class Airbench(nn.Module):
    """Whitened patches, groups of convolutions that each halve the resolution, global maximum, linear classifier."""

    def __init__(
        self, num_classes: int = 10, in_chans: int = 3, widths: Sequence[int] = (64, 256, 256), depth: int = 2
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = widths[-1]
        self.whiten = WhitenedPatches(in_chans, side=2)
        incoming = (self.whiten.out_channels, *widths[:-1])
        self.groups = nn.Sequential(*(Group(*channels, depth) for channels in zip(incoming, widths, strict=True)))
        self.activation = nn.GELU()
        self.feature_info = [
            {"num_chs": width, "reduction": 2 ** (group + 1), "module": f"groups.{group}"}
            for group, width in enumerate(widths)
        ]
        self.reset_classifier(num_classes)

    def forward_features(self, pixels: Tensor) -> Tensor:
        """Compute maps (N, widths[-1], H', W') of pixels (N, C, H, W)."""
        maps: Tensor = self.groups(self.activation(self.whiten(pixels)))
        return maps

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute the logits of maps, or with `pre_logits` what the classifier sees."""
        features = maps.amax(dim=(2, 3))
        return features if pre_logits else self.head(features)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute logits (N, K) of pixels (N, C, H, W)."""
        return self.forward_head(self.forward_features(pixels))

    def get_classifier(self) -> nn.Module:
        """Return the last layer, as timm's models do."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return which parameters are a layer of their own, as timm's models do: the stem, each group, the rest."""
        return {"stem": r"^whiten", "blocks": r"^groups\.(\d+)"}

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer; its small weights keep the first logits near zero."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes, bias=False)
        nn.init.normal_(self.head.weight, std=1 / self.num_features)


class Group(nn.Module):
    """A convolution and a pooling, then a second one; three have a residual connection around the last two."""

    def __init__(self, channels_in: int, channels_out: int, depth: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _convolution(channels_in, channels_out), _norm(channels_out)
        self.pool = nn.MaxPool2d(2)
        self.conv2, self.norm2 = _convolution(channels_out, channels_out), _norm(channels_out)
        self.residual = depth == 3
        if self.residual:
            self.conv3, self.norm3 = _convolution(channels_out, channels_out), _norm(channels_out)
        self.activation = nn.GELU()

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, channels_in, H, W) to (N, channels_out, H // 2, W // 2)."""
        maps = shortcut = self.activation(self.norm1(self.pool(self.conv1(maps))))
        maps = self.norm2(self.conv2(maps))
        if self.residual:
            maps = self.norm3(self.conv3(self.activation(maps))) + shortcut
        out: Tensor = self.activation(maps)
        return out


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
    """Fit the whitening layers of `network`, if there are any, to a part of `images`, uint8 (N, H, W, 3).

    These are 5,000 images, and of more than 32 px as many as have their pixels: all patches are in memory at once.
    """
    layers = [module for module in network.modules() if isinstance(module, WhitenedPatches)]
    if layers:
        side = preprocess(torch.from_numpy(np.array(images[:1]))).shape[-1]
        most = max(1, min(_FITTED_IMAGES, _FITTED_IMAGES * 32**2 // side**2))
        sample = images[:: math.ceil(len(images) / most)]
        pixels = preprocess(torch.from_numpy(np.array(sample)))
        for layer in layers:
            layer.fit(pixels)


def _convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    """3x3; as many outputs as there are inputs begin as copies of them, the others at random."""
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:channels_in])
    return conv


def _norm(channels: int) -> nn.BatchNorm2d:
    """Without a scale, and with statistics that forget quickly, as the weights change quickly."""
    norm = nn.BatchNorm2d(channels, momentum=0.4, eps=1e-12)
    norm.weight.requires_grad_(False)
    return norm


@register_model
def airbench94(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """94 % on CIFAR-10 in eight epochs: six convolutions."""
    return build_model_with_cfg(Airbench, "airbench94", pretrained, **arguments)


@register_model
def airbench96(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """96 % on CIFAR-10: nine convolutions, with residual connections."""
    arguments = {"widths": (128, 384, 512), "depth": 3, **arguments}
    return build_model_with_cfg(Airbench, "airbench96", pretrained, **arguments)
