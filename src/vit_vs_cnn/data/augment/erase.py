"""Squares that are wiped out."""

import torch
from torch import Generator, Tensor

from vit_vs_cnn.data.augment.draws import between, span, uniform


def erase(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """uint8 images (N, H, W, C), some with one square inside, of 1/8 to 1/2 of the side, filled with their mean."""
    count, height, width, _ = images.shape
    erased = uniform(count, generator) < probability
    side = (min(height, width) * between(1 / 8, 1 / 2, count, generator)).round()
    top = ((height - side + 1) * uniform(count, generator)).floor()
    left = ((width - side + 1) * uniform(count, generator)).floor()
    square = span(top, top + side, height)[:, :, None] & span(left, left + side, width)[:, None, :]
    return _filled(images, square & erased[:, None, None])


def cutout(images: Tensor, size: float, generator: Generator) -> Tensor:
    """uint8 images (N, H, W, C), each less a square of `size` of its side around any of its pixels.

    What of the square lies outside is lost; the rest is filled with the image's mean.
    DeVries and Taylor 2017, arXiv 1708.04552.
    """
    count, height, width, _ = images.shape
    side = round(size * min(height, width))
    top = (height * uniform(count, generator)).floor() - side // 2
    left = (width * uniform(count, generator)).floor() - side // 2
    return _filled(images, span(top, top + side, height)[:, :, None] & span(left, left + side, width)[:, None, :])


def _filled(images: Tensor, mask: Tensor) -> Tensor:
    mean = images.mean(dim=(1, 2), keepdim=True, dtype=torch.float32).round().to(torch.uint8)
    return torch.where(mask[..., None], mean, images)
