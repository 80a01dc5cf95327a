"""From stored pixels to what a network sees, as a part of the model so that serving cannot get it wrong."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Interpolation = Literal["bilinear", "bicubic"]

# ITU-R BT.601, as Pillow converts to grey.
_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114


class Preprocess(nn.Module):
    """uint8 images (N, S, S, 3) to normalised float32 (N, C, input_size, input_size).

    `mean` and `std` are per channel on the scale 0 to 1; where they are of one only, images become grey. `crop` is the
    part of the side that the network sees, in the middle: the images are resized to `input_size / crop` and cut.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: int,
        interpolation: Interpolation = "bilinear",
        crop: float = 1.0,
    ) -> None:
        super().__init__()
        self.input_size, self.interpolation, self.crop = input_size, interpolation, crop
        self.register_buffer("mean", 255.0 * torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        # A channel that never changes in train has no scale of its own.
        scale = [deviation or 1.0 for deviation in std]
        self.register_buffer("std", 255.0 * torch.tensor(scale).view(1, -1, 1, 1), persistent=False)

    @property
    def resized_size(self) -> int:
        """Side in pixels before the crop."""
        return math.floor(self.input_size / self.crop)

    def forward(self, images: Tensor) -> Tensor:
        """Resize, crop and normalise."""
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)
        if self.mean.shape[1] == 1:
            pixels = _RED * pixels[:, :1] + _GREEN * pixels[:, 1:2] + _BLUE * pixels[:, 2:]
        (height, width), side = pixels.shape[-2:], self.resized_size
        if (height, width) != (side, side):
            # Only the antialiased form of PyTorch's bicubic interpolation is that of Pillow, which checkpoints know.
            antialias = min(height, width) > side or self.interpolation == "bicubic"
            pixels = functional.interpolate(pixels, size=(side, side), mode=self.interpolation, antialias=antialias)
            if self.interpolation == "bicubic":
                pixels = pixels.clamp(0.0, 255.0)
        if side != self.input_size:
            start = (side - self.input_size) // 2
            pixels = pixels[..., start : start + self.input_size, start : start + self.input_size]
        return (pixels - self.mean) / self.std

    def visible(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the part of stored images (N, S, S, 3) that the network sees, at their own resolution."""
        part = self.visible_part(images.shape[1])
        return images[:, part, part]

    def visible_part(self, side: int) -> slice:
        """Return the rows, and the columns, of stored images of `side` pixels that the network sees."""
        seen = round(side * self.input_size / self.resized_size)
        start = (side - seen) // 2
        return slice(start, start + seen)
