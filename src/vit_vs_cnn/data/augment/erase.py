"""Rectangles of a batch, and squares filled with the mean of their image."""

import torch
from torch import Generator, Tensor

from vit_vs_cnn.data.augment import between, uniform


def erase(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """Erase, with `probability`, a square of 1/8 to 1/2 of the side inside each of the uint8 images (N, H, W, C)."""
    count, height, width, _ = images.shape
    erased = uniform(count, generator) < probability
    side = (min(height, width) * between(1 / 8, 1 / 2, count, generator)).round()
    top = ((height - side + 1) * uniform(count, generator)).floor()
    left = ((width - side + 1) * uniform(count, generator)).floor()
    square = rectangle_mask((top, top + side), (left, left + side), height, width)
    return _filled(images, square & erased[:, None, None])


def cutout(images: Tensor, size: float, generator: Generator) -> Tensor:
    """Erase a square of `size` of the side around a random pixel of each of the uint8 images (N, H, W, C).

    The part of the square outside the image is lost. DeVries and Taylor 2017, arXiv 1708.04552.
    """
    count, height, width, _ = images.shape
    side = round(size * min(height, width))
    top = (height * uniform(count, generator)).floor() - side // 2
    left = (width * uniform(count, generator)).floor() - side // 2
    return _filled(images, rectangle_mask((top, top + side), (left, left + side), height, width))


def rectangle_mask(rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], height: int, width: int) -> Tensor:
    """Whether a pixel lies within its image's rectangle, bool (N, H, W); `rows` and `columns` are [start, stop)."""
    return _interval_mask(*rows, height)[:, :, None] & _interval_mask(*columns, width)[:, None, :]


def _interval_mask(start: Tensor, stop: Tensor, side: int) -> Tensor:
    places = torch.arange(side, device=start.device)
    return (places >= start[:, None]) & (places < stop[:, None])


def _filled(images: Tensor, mask: Tensor) -> Tensor:
    mean = images.mean(dim=(1, 2), keepdim=True, dtype=torch.float32).round().to(torch.uint8)
    return torch.where(mask[..., None], mean, images)
