"""Light and colour; images are float (N, H, W, 3) on the scale 0 to 255, with one factor (N,) for each."""

import torch
from torch import Generator, Tensor

from vit_vs_cnn.config.schema import AugmentSettings
from vit_vs_cnn.data.augment.draws import between, factors

# Rec. 601, as torchvision and PIL weigh red, green and blue.
_LUMA = (0.2989, 0.587, 0.114)


def jitter(images: Tensor, settings: AugmentSettings, generator: Generator) -> Tensor:
    """uint8 images (N, H, W, 3) with random brightness, contrast, saturation and hue, in this order."""
    pixels, count = images.float(), len(images)
    if settings.brightness:
        pixels = adjust_brightness(pixels, factors(settings.brightness, count, generator))
    if settings.contrast:
        pixels = adjust_contrast(pixels, factors(settings.contrast, count, generator))
    if settings.saturation:
        pixels = adjust_saturation(pixels, factors(settings.saturation, count, generator))
    if settings.hue:
        pixels = adjust_hue(pixels.clamp(0, 255), between(-settings.hue, settings.hue, count, generator))
    return to_uint8(pixels)


def adjust_brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """DecodedImages times `factor`."""
    return pixels * _each(factor)


def adjust_contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """DecodedImages at `factor` times their distance from the image's mean grey."""
    return torch.lerp(_grey(pixels).mean(dim=(1, 2, 3), keepdim=True), pixels, _each(factor))


def adjust_saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """DecodedImages at `factor` times their distance from their own grey."""
    return torch.lerp(_grey(pixels), pixels, _each(factor))


def adjust_hue(pixels: Tensor, shift: Tensor) -> Tensor:
    """DecodedImages with the hue moved by `shift` turns of the colour circle; value and saturation (of HSV) stay."""
    red, green, blue = pixels.unbind(3)
    value = torch.maximum(red, torch.maximum(green, blue))
    chroma = value - torch.minimum(red, torch.minimum(green, blue))
    size = chroma.clamp(min=1e-6)  # grey has no hue, and any will do
    sector = torch.where(
        value == red,
        (green - blue) / size,
        torch.where(value == green, 2 + (blue - red) / size, 4 + (red - green) / size),
    )
    places = [(sector + 6 * shift[:, None, None] + offset).remainder(6) for offset in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(place, 4 - place).clamp(0, 1) for place in places], dim=3)


def to_uint8(pixels: Tensor) -> Tensor:
    """The nearest uint8 levels."""
    return pixels.round().clamp_(0, 255).to(torch.uint8)


def _grey(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.unbind(3)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[..., None]


def _each(factor: Tensor) -> Tensor:
    return factor[:, None, None, None]
