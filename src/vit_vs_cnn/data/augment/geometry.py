"""Where each pixel comes from: mirror, shift, rotation, random resized crop."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from vit_vs_cnn.data.augment.draws import between, uniform

# Those of torchvision's RandomResizedCrop: the sides' ratios, and how often a crop that does not fit is drawn again.
_CROP_RATIO = 4 / 3
_CROP_DRAWS = 10


def alternating_flips(count: int, epoch: int, seed: int) -> Tensor:
    """Which of `count` images are mirrored in `epoch`, bool on the CPU: each in every other one, its first at random.

    Keller Jordan 2024, arXiv 2404.00498.
    """
    first = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.5
    return first ^ bool(epoch % 2)


def flip_and_shift(
    images: Tensor, flip: float, translate: float, generator: Generator, mirrored: Tensor | None = None
) -> Tensor:
    """uint8 images (N, H, W, C) mirrored (those that `mirrored` names, or with probability `flip`) and shifted."""
    count, height, width, channels = images.shape
    rows = _shifted(height, count, translate, generator)
    columns = _shifted(width, count, translate, generator)
    if mirrored is None and flip:
        mirrored = uniform(count, generator) < flip
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    first_pixel = torch.arange(count, device=images.device)[:, None] * (height * width)
    source = (first_pixel + rows * width)[:, :, None] + columns[:, None, :]
    # One gather of whole pixels, shift and mirror in a single pass over the bytes: at 32 px it moves twice the images
    # per second of three-way advanced indexing, and three times those of padding and cropping.
    return images.reshape(-1, channels).index_select(0, source.flatten()).view_as(images)


def rotate_and_crop(images: Tensor, rotation: float, resize: float, generator: Generator) -> Tensor:
    """uint8 images (N, H, W, C) rotated by up to `rotation` degrees, then a random crop of them at the full size.

    The crop's area is a share from 1 - `resize` to 1 of the image's; the pixels are interpolated once for both.
    """
    count, height, width, _ = images.shape
    rows, columns = _places(height, images).expand(count, -1), _places(width, images).expand(count, -1)
    if resize:
        top, left, crop_height, crop_width = _crops(count, height, width, resize, generator)
        rows, columns = _spread(top, crop_height, height), _spread(left, crop_width, width)
    angles = between(-rotation, rotation, count, generator) if rotation else torch.zeros(count, device=images.device)
    return sample(images, *rotated(columns[:, None, :], rows[:, :, None], angles), outside="reflection")


def rotated(x: Tensor, y: Tensor, degrees: Tensor) -> tuple[Tensor, Tensor]:
    """The points that a counter-clockwise rotation by `degrees` (N,) around the origin brings to `x`, `y` (y down)."""
    angle = torch.deg2rad(degrees)[:, None, None]
    return angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y


def centred(images: Tensor) -> tuple[Tensor, Tensor]:
    """The places x (1, 1, W) and y (1, H, 1) of the pixels of images (N, H, W, C), from the image's centre."""
    _, height, width, _ = images.shape
    return _places(width, images)[None, None, :], _places(height, images)[None, :, None]


def sample(images: Tensor, x: Tensor, y: Tensor, outside: str) -> Tensor:
    """uint8 images (N, H, W, C) whose pixels are taken, bilinearly, at `x` and `y` from the centre, (N, H, W) each.

    `outside` is PyTorch's padding mode for points beyond the border: zeros | border | reflection.
    """
    count, height, width, _ = images.shape
    grid = torch.stack([(x * 2 / width).expand(count, height, width), (y * 2 / height).expand(count, height, width)], 3)
    pixels = images.permute(0, 3, 1, 2).float()
    taken = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode=outside, align_corners=False)
    return taken.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _shifted(side: int, count: int, translate: float, generator: Generator) -> Tensor:
    """The pixel that each place along a side takes, int64 (count, side): shifted, and reflected at the borders."""
    reach = round(translate * side)
    places = torch.arange(side, device=generator.device).expand(count, side)
    if not reach:
        return places
    shift = torch.randint(-reach, reach + 1, (count, 1), generator=generator, device=generator.device)
    return (side - 1) - ((side - 1) - (places + shift).abs()).abs()


def _places(side: int, images: Tensor) -> Tensor:
    return torch.arange(side, device=images.device) - (side - 1) / 2


def _crops(count: int, height: int, width: int, resize: float, generator: Generator) -> tuple[Tensor, ...]:
    """Top, left, height and width of each image's crop in whole pixels, drawn as torchvision's RandomResizedCrop does.

    Every image has all its draws at once and takes the first crop that fits, or else the whole image.
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
    """The places (N, side) along a side, from its centre, at which [start, start + length) is sampled `side` times."""
    steps = (torch.arange(side, device=start.device) + 0.5) / side
    within = (length[:, None] * steps - 0.5).clamp_(min=0).minimum(length[:, None] - 1)
    return start[:, None] + within - (side - 1) / 2
