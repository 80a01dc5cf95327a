"""Light and colour: images are float (N, H, W, 3) on the scale 0 to 255, each with its own factor (N,)."""

import torch
from torch import Generator, Tensor

from vit_vs_cnn.config.recipe import AugmentSettings
from vit_vs_cnn.data.augment import between, uniform

# Rec. 601, as torchvision and PIL weigh red, green and blue.
_LUMA = (0.2989, 0.587, 0.114)


def jitter(images: Tensor, settings: AugmentSettings, generator: Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue of uint8 images (N, H, W, 3) at random, in this order."""
    pixels, count = images.float(), len(images)
    if settings.brightness:
        pixels = adjust_brightness(pixels, _factors(settings.brightness, count, generator))
    if settings.contrast:
        pixels = adjust_contrast(pixels, _factors(settings.contrast, count, generator))
    if settings.saturation:
        pixels = adjust_saturation(pixels, _factors(settings.saturation, count, generator))
    if settings.hue:
        pixels = adjust_hue(pixels.clamp(0, 255), between(-settings.hue, settings.hue, count, generator))
    return to_uint8(pixels)


def adjust_brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Multiply the pixels by `factor`."""
    return pixels * _per_image(factor)


def adjust_contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance of the pixels from their image's mean grey by `factor`."""
    return torch.lerp(_grey(pixels).mean(dim=(1, 2, 3), keepdim=True), pixels, _per_image(factor))


def adjust_saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance of the pixels from their own grey by `factor`."""
    return torch.lerp(_grey(pixels), pixels, _per_image(factor))


def adjust_hue(pixels: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue by `shift` turns of the colour circle; value and saturation (of HSV) stay."""
    red, green, blue = pixels.unbind(3)
    value = torch.maximum(red, torch.maximum(green, blue))
    chroma = value - torch.minimum(red, torch.minimum(green, blue))
    size = chroma.clamp(min=1e-6)  # grey has no hue: any sector will do
    sector = torch.where(
        value == red,
        (green - blue) / size,
        torch.where(value == green, 2 + (blue - red) / size, 4 + (red - green) / size),
    )
    places = [(sector + 6 * shift[:, None, None] + offset).remainder(6) for offset in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(place, 4 - place).clamp(0, 1) for place in places], dim=3)


def to_uint8(pixels: Tensor) -> Tensor:
    """Round to the nearest uint8 levels."""
    return pixels.round().clamp_(0, 255).to(torch.uint8)


def _factors(reach: float, count: int, generator: Generator) -> Tensor:
    """Draw floats (count,) in [1 - reach, 1 + reach)."""
    return 1 + reach * (2 * uniform(count, generator) - 1)


def _grey(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.unbind(3)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[..., None]


def _per_image(factor: Tensor) -> Tensor:
    return factor[:, None, None, None]
