"""Test-time views: the mean of a network's answers to an image, its mirror image and small shifts."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vit_vs_cnn.config.schema import EvaluateSettings
from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.evaluation.metrics import share_interval
from vit_vs_cnn.evaluation.predict import batch_predict
from vit_vs_cnn.evaluation.results import Views

Logits = Callable[[Tensor], Tensor]


def measure_views(
    logits: Logits, plain: NDArray[np.float32], test: Split, settings: EvaluateSettings, device: torch.device
) -> Views | None:
    """The accuracy that `settings.views` give on test, beside the `plain` logits (N, K); None where they are off."""
    if settings.views == 1:
        return None
    call = mirrored(logits) if settings.views == "flip" else six_views(logits)
    averaged = batch_predict(call, test.images, settings.batch_size, device, "views")
    correct, before = averaged.argmax(axis=1) == test.labels, plain.argmax(axis=1) == test.labels
    low, high = share_interval(correct, test.group_codes, settings.confidence)
    return Views(
        forwards=2 if settings.views == "flip" else 6,
        accuracy=float(correct.mean()),
        accuracy_low=low,
        accuracy_high=high,
        gained=int((correct & ~before).sum()),
        lost=int((before & ~correct).sum()),
    )


def mirrored(logits: Logits) -> Logits:
    """The mean logits (N, K) of images (N, H, W, 3) and their mirror images."""
    return lambda images: (logits(images) + logits(images.flip(2))) / 2


def six_views(logits: Logits) -> Logits:
    """The mean logits of six views: as they are, and shifted along the diagonal both ways, each mirrored as well.

    The shift is one pixel in 32; the border is reflected. Images that are not shifted count as much as both shifts.
    Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498, section 3.5.
    """
    of_both = mirrored(logits)

    def average(images: Tensor) -> Tensor:
        pixels = max(1, round(images.shape[1] / 32))
        shifts = (of_both(_shifted(images, pixels)) + of_both(_shifted(images, -pixels))) / 2
        return (of_both(images) + shifts) / 2

    return average


def _shifted(images: Tensor, pixels: int) -> Tensor:
    """Images (N, H, W, 3) moved up and left by `pixels`, or down and right by a negative number of them."""
    for axis in (1, 2):
        last = images.shape[axis] - 1
        source = torch.arange(last + 1, device=images.device) + pixels
        images = images.index_select(axis, last - (last - source.abs()).abs())
    return images
