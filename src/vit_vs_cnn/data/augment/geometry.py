"""Where each pixel comes from: flip, shift, rotation, random resized crop."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from vit_vs_cnn.data.augment import between, uniform

# As in torchvision's RandomResizedCrop: the largest ratio of the sides, and the number of draws until a crop fits.
_CROP_RATIO = 4 / 3
_CROP_DRAWS = 10


def alternating_flips(count: int, epoch: int, seed: int) -> Tensor:
    """Which of `count` images are flipped in `epoch`, bool on the CPU: each in every other epoch, its first at random.

    Keller Jordan 2024, arXiv 2404.00498.
    """
    first = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.5
    return first ^ bool(epoch % 2)


def flip_and_shift(
    images: Tensor, flip: float, translate: float, generator: Generator, mirrored: Tensor | None = None
) -> Tensor:
    """Flip uint8 images (N, H, W, C), those where `mirrored` or with probability `flip`, and shift them."""
    count, height, width, channels = images.shape
    rows = _shifted(height, count, translate, generator)
    columns = _shifted(width, count, translate, generator)
    if mirrored is None and flip:
        mirrored = uniform(count, generator) < flip
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    first_pixel = torch.arange(count, device=images.device)[:, None] * (height * width)
    source = (first_pixel + rows * width)[:, :, None] + columns[:, None, :]
    # One gather of whole pixels, flip and shift in a single pass over the bytes: at 32 px it moves twice the images
    # per second of three-way advanced indexing, and three times those of padding and cropping.
    return images.reshape(-1, channels).index_select(0, source.flatten()).view_as(images)


def rotate_and_crop(images: Tensor, rotation: float, resize: float, generator: Generator) -> Tensor:
    """Rotate uint8 images (N, H, W, C) by up to `rotation` degrees and resize a random crop of them to the full size.

    The crop's area is a share from 1 - `resize` to 1 of the image's; the pixels are interpolated once for both.
    """
    count, height, width, _ = images.shape
    rows, columns = _places(height, images).expand(count, -1), _places(width, images).expand(count, -1)
    if resize:
        top, left, crop_height, crop_width = _random_crops(count, height, width, resize, generator)
        rows, columns = _spread(top, crop_height, height), _spread(left, crop_width, width)
    degrees = between(-rotation, rotation, count, generator) if rotation else torch.zeros(count, device=images.device)
    return resample(images, rows, columns, degrees)


def resample(images: Tensor, rows: Tensor, columns: Tensor, degrees: Tensor) -> Tensor:
    """Take uint8 images (N, H, W, C), rotated counter-clockwise by `degrees` (N,), at a grid of points.

    `rows` (N, H) and `columns` (N, W) are distances from the image's centre, in pixels. Pixels are interpolated
    bilinearly and reflected at the borders.
    """
    _, height, width, _ = images.shape
    angle = torch.deg2rad(degrees)[:, None, None]
    y, x = rows[:, :, None], columns[:, None, :]
    source_x, source_y = angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y
    grid = torch.stack([source_x * 2 / width, source_y * 2 / height], dim=3)
    pixels = images.permute(0, 3, 1, 2).float()
    taken = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return taken.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _shifted(side: int, count: int, translate: float, generator: Generator) -> Tensor:
    """The source of each pixel along a side, int64 (count, side): shifted at random, reflected at the borders."""
    reach = round(translate * side)
    places = torch.arange(side, device=generator.device).expand(count, side)
    if not reach:
        return places
    shift = torch.randint(-reach, reach + 1, (count, 1), generator=generator, device=generator.device)
    return (side - 1) - ((side - 1) - (places + shift).abs()).abs()


def _places(side: int, images: Tensor) -> Tensor:
    """The pixels along a side, as distances from its centre."""
    return torch.arange(side, device=images.device) - (side - 1) / 2


def _random_crops(count: int, height: int, width: int, resize: float, generator: Generator) -> tuple[Tensor, ...]:
    """Draw top, left, height and width (N,) of crops in whole pixels, as torchvision's RandomResizedCrop does.

    All draws of an image are made at once; the first crop that fits is taken, or else the whole image.
    """
    draws = count * _CROP_DRAWS
    area = height * width * between(1 - resize, 1, draws, generator)
    ratio = between(-math.log(_CROP_RATIO), math.log(_CROP_RATIO), draws, generator).exp()
    heights = (area / ratio).sqrt().round().clamp_(min=1).view(count, _CROP_DRAWS)
    widths = (area * ratio).sqrt().round().clamp_(min=1).view(count, _CROP_DRAWS)
    fits = (heights <= height) & (widths <= width)
    first = fits.int().argmax(dim=1, keepdim=True)  # of equals the first
    fitted = fits.any(dim=1)
    crop_height = torch.where(fitted, heights.gather(1, first)[:, 0], float(height))
    crop_width = torch.where(fitted, widths.gather(1, first)[:, 0], float(width))
    top = ((height - crop_height + 1) * uniform(count, generator)).floor()
    left = ((width - crop_width + 1) * uniform(count, generator)).floor()
    return top, left, crop_height, crop_width


def _spread(start: Tensor, length: Tensor, side: int) -> Tensor:
    """The `side` equally spaced places in [start, start + length), as distances from the side's centre (N, side)."""
    steps = (torch.arange(side, device=start.device) + 0.5) / side
    within = (length[:, None] * steps - 0.5).clamp_(min=0).minimum(length[:, None] - 1)
    return start[:, None] + within - (side - 1) / 2
