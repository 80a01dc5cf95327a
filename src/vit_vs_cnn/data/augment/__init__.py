"""Augmentation of whole batches by tensor operations, each image with its own random draw.

All random numbers come from the generator that the caller passes.
"""

import torch
from torch import Generator, Tensor


def uniform(count: int, generator: Generator) -> Tensor:
    """Draw floats (count,) in [0, 1) on the generator's device."""
    return torch.rand(count, generator=generator, device=generator.device)


def between(low: float, high: float, count: int, generator: Generator) -> Tensor:
    """Draw floats (count,) in [low, high) on the generator's device."""
    return low + (high - low) * uniform(count, generator)
