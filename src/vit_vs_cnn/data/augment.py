"""Augmentation of whole batches by tensor operations, each image with its own random draw.

Every draw comes from the generator that the caller passes, so its state decides the outcome, on the CPU as on a GPU.
What the settings switch off costs nothing and draws nothing.
"""

import torch
from torch import Generator, Tensor

from vit_vs_cnn.config import AugmentSettings


class Augment:
    """Random flip, shift, brightness, contrast and erasing of uint8 images, as the settings say."""

    def __init__(self, settings: AugmentSettings) -> None:
        self.settings = settings

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """A changed copy of `images`, uint8 (N, H, W, 3), on their device, which is also the generator's."""
        settings = self.settings
        if settings.flip or settings.translate:
            images = _flip_and_shift(images, settings.flip, settings.translate, generator)
        if settings.brightness or settings.contrast:
            images = _relight(images, settings.brightness, settings.contrast, generator)
        if settings.erase:
            images = _erase(images, settings.erase, generator)
        return images


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
        cuts = _uniform(count, generator) < 0.5
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


def _flip_and_shift(images: Tensor, flip: float, translate: float, generator: Generator) -> Tensor:
    count, height, width, channels = images.shape
    rows = _shifted(height, count, translate, generator)
    columns = _shifted(width, count, translate, generator)
    if flip:
        mirrored = _uniform(count, generator) < flip
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    first_pixel = torch.arange(count, device=images.device)[:, None] * (height * width)
    source = (first_pixel + rows * width)[:, :, None] + columns[:, None, :]
    # One gather of whole pixels, shift and mirror in a single pass over the bytes: at 32 px it moves twice the images
    # per second of three-way advanced indexing, and three times those of padding and cropping.
    return images.reshape(-1, channels).index_select(0, source.flatten()).view_as(images)


def _shifted(side: int, count: int, translate: float, generator: Generator) -> Tensor:
    """The pixel that each place along a side takes, int64 (count, side): shifted, and reflected at the borders."""
    reach = round(translate * side)
    places = torch.arange(side, device=generator.device).expand(count, side)
    if not reach:
        return places
    shift = torch.randint(-reach, reach + 1, (count, 1), generator=generator, device=generator.device)
    return (side - 1) - ((side - 1) - (places + shift).abs()).abs()


def _relight(images: Tensor, brightness: float, contrast: float, generator: Generator) -> Tensor:
    pixels = images.float()
    if brightness:
        pixels *= _around_one(brightness, len(images), generator)
    if contrast:
        mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
        pixels = torch.lerp(mean, pixels, _around_one(contrast, len(images), generator))
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


def _erase(images: Tensor, probability: float, generator: Generator) -> Tensor:
    count, height, width, _ = images.shape
    erased = _uniform(count, generator) < probability
    side = (min(height, width) * (1 / 8 + 3 / 8 * _uniform(count, generator))).round()
    top = ((height - side + 1) * _uniform(count, generator)).floor()
    left = ((width - side + 1) * _uniform(count, generator)).floor()
    square = _span(top, top + side, height)[:, :, None] & _span(left, left + side, width)[:, None, :]
    mean = images.mean(dim=(1, 2), keepdim=True, dtype=torch.float32).round().to(torch.uint8)
    return torch.where((square & erased[:, None, None])[..., None], mean, images)


def _cut_box(own: Tensor, height: int, width: int, generator: Generator) -> Tensor:
    """CutMix's box, bool (N, H, W): an area of 1 - `own` around a uniform centre, clipped at the border."""
    half = (1 - own).sqrt() / 2
    y = (height * _uniform(len(own), generator)).floor()
    x = (width * _uniform(len(own), generator)).floor()
    rows = _span(y - (half * height).round(), y + (half * height).round(), height)
    columns = _span(x - (half * width).round(), x + (half * width).round(), width)
    return rows[:, :, None] & columns[:, None, :]


def _span(start: Tensor, stop: Tensor, side: int) -> Tensor:
    """Which pixels along a side lie in [start, stop), bool (N, side)."""
    places = torch.arange(side, device=start.device)
    return (places >= start[:, None]) & (places < stop[:, None])


def _around_one(reach: float, count: int, generator: Generator) -> Tensor:
    return 1 + reach * (2 * _uniform(count, generator)[:, None, None, None] - 1)


def _uniform(count: int, generator: Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device)
