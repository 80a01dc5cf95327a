"""Images mixed with one another, and their labels with them."""

import torch
from torch import Generator, Tensor

from vit_vs_cnn.config.recipe import AugmentSettings
from vit_vs_cnn.data.augment import uniform
from vit_vs_cnn.data.augment.erase import rectangle_mask


def mix(images: Tensor, labels: Tensor, settings: AugmentSettings, generator: Generator) -> tuple[Tensor, Tensor]:
    """Mix each image with another one of the batch, by mixup or cutmix, and the labels in the same shares.

    `images` are float (N, C, H, W), `labels` float (N, K) distributions over the classes. With both methods on, each
    image takes one of them with probability 1/2; with both off the tensors are returned as they are.

    Mixup: Zhang et al. 2017, arXiv 1710.09412. CutMix: Yun et al. 2019, arXiv 1905.04899.
    """
    if not (settings.mixup or settings.cutmix):
        return images, labels
    count, device = len(images), images.device
    partner = torch.randperm(count, generator=generator, device=device)
    if settings.mixup and settings.cutmix:
        cuts = uniform(count, generator) < 0.5
    else:
        cuts = torch.full((count,), settings.cutmix > 0, device=device)
    alpha = torch.where(cuts, settings.cutmix, settings.mixup)
    # Beta(a, a) as a Dirichlet of two: torch.distributions calls this function, but passes no generator on.
    own = torch._sample_dirichlet(alpha[:, None].repeat(1, 2), generator)[:, 0]
    weight = own.to(images.dtype)[:, None, None, None]
    if settings.cutmix:
        box = _cutmix_box(own, images.shape[2], images.shape[3], generator)[:, None]
        weight = torch.where(cuts[:, None, None, None], (~box).to(images.dtype), weight)
    # The share of the label is the share of the pixels: of a box clipped at the border only the inside counts.
    share = weight.to(labels.dtype).mean(dim=(1, 2, 3))[:, None]
    return torch.lerp(images[partner], images, weight), torch.lerp(labels[partner], labels, share)


def _cutmix_box(own: Tensor, height: int, width: int, generator: Generator) -> Tensor:
    """Draw CutMix's box, bool (N, H, W): an area of 1 - `own` around a uniform centre, clipped at the border."""
    half = (1 - own).sqrt() / 2
    y = (height * uniform(len(own), generator)).floor()
    x = (width * uniform(len(own), generator)).floor()
    half_height, half_width = (half * height).round(), (half * width).round()
    return rectangle_mask((y - half_height, y + half_height), (x - half_width, x + half_width), height, width)
