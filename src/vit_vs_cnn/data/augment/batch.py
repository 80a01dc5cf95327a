"""Everything that the settings switch on, applied to a batch.

All random numbers come from the generator that the caller passes, so its state decides the result, on the CPU as on a
GPU. What the settings switch off costs nothing and draws nothing.
"""

from torch import Generator, Tensor

from vit_vs_cnn.config.recipe import AugmentSettings
from vit_vs_cnn.data.augment.colour import jitter
from vit_vs_cnn.data.augment.erase import cutout, erase
from vit_vs_cnn.data.augment.geometry import flip_and_shift, rotate_and_crop


def augment(images: Tensor, settings: AugmentSettings, generator: Generator, mirrored: Tensor | None = None) -> Tensor:
    """Change a copy of `images`, uint8 (N, H, W, 3), at random, except for mixing them with one another.

    The generator is on the images' device. `mirrored`, bool (N,), says which images to flip; without it that is drawn.
    """
    # Where the caller does not say which images an epoch flips, an alternating flip is one with probability 1/2.
    flip = 0.5 if settings.alternating_flip else settings.flip
    if flip or settings.translate:
        images = flip_and_shift(images, flip, settings.translate, generator, mirrored)
    if settings.rotation or settings.resize:
        images = rotate_and_crop(images, settings.rotation, settings.resize, generator)
    if settings.brightness or settings.contrast or settings.saturation or settings.hue:
        images = jitter(images, settings, generator)
    if settings.erase:
        images = erase(images, settings.erase, generator)
    if settings.cutout:
        images = cutout(images, settings.cutout, generator)
    return images
