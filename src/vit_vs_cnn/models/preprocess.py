"""From stored pixels to what a network sees, as a part of the model so that serving cannot get it wrong."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Preprocess(nn.Module):
    """uint8 images (N, H, W, 3) to normalised float32 (N, 3, input_size, input_size).

    `mean` and `std` are per channel on the scale 0 to 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], input_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.register_buffer("mean", 255.0 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Resize (bilinear, antialiased when shrinking) and normalise."""
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)
        height, width = pixels.shape[-2:]
        if (height, width) != (self.input_size, self.input_size):
            pixels = functional.interpolate(
                pixels,
                size=(self.input_size, self.input_size),
                mode="bilinear",
                antialias=min(height, width) > self.input_size,
            )
        return (pixels - self.mean) / self.std
