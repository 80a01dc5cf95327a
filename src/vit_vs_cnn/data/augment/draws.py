"""Random numbers for a batch, one per image, all from the generator that the caller passes."""

import torch
from torch import Generator, Tensor


def uniform(count: int, generator: Generator) -> Tensor:
    """Floats (count,) in [0, 1) on the generator's device."""
    return torch.rand(count, generator=generator, device=generator.device)


def between(low: float, high: float, count: int, generator: Generator) -> Tensor:
    """Floats (count,) in [low, high) on the generator's device."""
    return low + (high - low) * uniform(count, generator)


def factors(reach: float, count: int, generator: Generator) -> Tensor:
    """Floats (count,) in [1 - reach, 1 + reach) on the generator's device."""
    return 1 + reach * (2 * uniform(count, generator) - 1)


def span(start: Tensor, stop: Tensor, side: int) -> Tensor:
    """Which pixels along a side lie in [start, stop), bool (N, side)."""
    places = torch.arange(side, device=start.device)
    return (places >= start[:, None]) & (places < stop[:, None])
