"""Images mixed with one another, and their labels with them."""

import torch
from torch import Generator, Tensor

from vit_vs_cnn.config.schema import AugmentSettings
from vit_vs_cnn.data.augment.draws import span, uniform


def mix(images: Tensor, labels: Tensor, settings: AugmentSettings, generator: Generator) -> tuple[Tensor, Tensor]:
    """Each image mixed with another one of the batch, by mixup or cutmix, and the labels in the same shares.

    `images` are float (N, C, H, W), `labels` float (N, K) distributions over the classes. With both methods on, each
    image takes one of them with probability 1/2; with both off the very tensors passed come back.

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
    # Beta(a, a) as a Dirichlet of two: torch.distributions calls this very function, but lets no generator through.
    own = torch._sample_dirichlet(alpha[:, None].repeat(1, 2), generator)[:, 0]
    weight = own.to(images.dtype)[:, None, None, None]
    if settings.cutmix:
        box = _cut_box(own, images.shape[2], images.shape[3], generator)[:, None]
        weight = torch.where(cuts[:, None, None, None], (~box).to(images.dtype), weight)
    # The share of the label is the share of the pixels: a box that the border clips counts for what is left of it.
    share = weight.to(labels.dtype).mean(dim=(1, 2, 3))[:, None]
    return torch.lerp(images[partner], images, weight), torch.lerp(labels[partner], labels, share)


def _cut_box(own: Tensor, height: int, width: int, generator: Generator) -> Tensor:
    """CutMix's box, bool (N, H, W): an area of 1 - `own` around a uniform centre, clipped at the border."""
    half = (1 - own).sqrt() / 2
    y = (height * uniform(len(own), generator)).floor()
    x = (width * uniform(len(own), generator)).floor()
    rows = span(y - (half * height).round(), y + (half * height).round(), height)
    columns = span(x - (half * width).round(), x + (half * width).round(), width)
    return rows[:, :, None] & columns[:, None, :]
