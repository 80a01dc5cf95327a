"""TrivialAugment: one random operation per image, at a random strength."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as torchvision

from vit_vs_cnn.data.augment.colour import adjust_brightness, adjust_contrast, adjust_saturation, to_uint8
from vit_vs_cnn.data.augment.draws import uniform
from vit_vs_cnn.data.augment.geometry import centred, rotated, sample

# The strengths of torchvision's TrivialAugmentWide, with its 31 levels of each.
_LEVELS = 31
_SHEAR = 0.99
_TRANSLATE_PIXELS = 32
_ROTATE_DEGREES = 135
_FACTOR = 0.99
_POSTERIZE_BITS = 6


def trivial_augment(images: Tensor, generator: Generator) -> Tensor:
    """uint8 images (N, H, W, 3), each changed by one of 14 operations at one of 31 strengths.

    Müller and Hutter 2021, arXiv 2103.10158, as torchvision's TrivialAugmentWide, bilinear and with black corners.
    """
    count, device = len(images), images.device
    share = math.ceil(count / len(_OPERATIONS))
    dealt = share * len(_OPERATIONS)
    # The operations are dealt like cards: to an image each is as likely as any other, and as it is known beforehand
    # how many images have which one, the device need not be asked.
    order = torch.randperm(dealt, generator=generator, device=device)
    level = torch.randint(_LEVELS, (dealt,), generator=generator, device=device) / (_LEVELS - 1)
    level = torch.where(uniform(dealt, generator) < 0.5, -level, level)
    hands = zip(_OPERATIONS, images[order % count].tensor_split(len(_OPERATIONS)), level.view(-1, share), strict=True)
    return torch.cat([operation(hand, strength) for operation, hand, strength in hands])[order.argsort()[:count]]


def _identity(images: Tensor, _: Tensor) -> Tensor:
    return images


def _shear_x(images: Tensor, level: Tensor) -> Tensor:
    x, y = centred(images)
    return sample(images, x + _each(_SHEAR * level) * (y + images.shape[1] / 2), y, outside="zeros")


def _shear_y(images: Tensor, level: Tensor) -> Tensor:
    x, y = centred(images)
    return sample(images, x, y + _each(_SHEAR * level) * (x + images.shape[2] / 2), outside="zeros")


def _translate_x(images: Tensor, level: Tensor) -> Tensor:
    x, y = centred(images)
    return sample(images, x + _each(_TRANSLATE_PIXELS * level).trunc(), y, outside="zeros")


def _translate_y(images: Tensor, level: Tensor) -> Tensor:
    x, y = centred(images)
    return sample(images, x, y + _each(_TRANSLATE_PIXELS * level).trunc(), outside="zeros")


def _rotate(images: Tensor, level: Tensor) -> Tensor:
    return sample(images, *rotated(*centred(images), _ROTATE_DEGREES * level), outside="zeros")


def _brightness(images: Tensor, level: Tensor) -> Tensor:
    return to_uint8(adjust_brightness(images.float(), 1 + _FACTOR * level))


def _colour(images: Tensor, level: Tensor) -> Tensor:
    return to_uint8(adjust_saturation(images.float(), 1 + _FACTOR * level))


def _contrast(images: Tensor, level: Tensor) -> Tensor:
    return to_uint8(adjust_contrast(images.float(), 1 + _FACTOR * level))


def _sharpness(images: Tensor, level: Tensor) -> Tensor:
    blurred = _planewise(images, lambda planes: torchvision.adjust_sharpness(planes, 0.0))
    return to_uint8(torch.lerp(blurred.float(), images.float(), 1 + _FACTOR * level[:, None, None, None]))


def _posterize(images: Tensor, level: Tensor) -> Tensor:
    bits = (_POSTERIZE_BITS * level.abs()).round().to(torch.uint8)[:, None, None, None]
    return images >> bits << bits


def _solarize(images: Tensor, level: Tensor) -> Tensor:
    return torch.where(images >= 255 * (1 - level.abs())[:, None, None, None], 255 - images, images)


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    return _planewise(images, torchvision.autocontrast)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    return _planewise(images, torchvision.equalize)


def _planewise(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """What a function of torchvision, which has no draw and treats each image alone, makes of images (N, H, W, 3)."""
    return change(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None]


# Each takes uint8 images (M, H, W, 3) and a level (M,) from -1 to 1.
_OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _identity,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _rotate,
    _brightness,
    _colour,
    _contrast,
    _sharpness,
    _posterize,
    _solarize,
    _autocontrast,
    _equalize,
)
