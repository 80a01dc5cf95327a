"""Which of timm's two ways a network computes its attention."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def unfused_attention(network: nn.Module) -> Iterator[None]:
    """Meanwhile the attention layers of a timm network do without PyTorch's fused kernel; the results are the same."""
    fused = [module for module in network.modules() if getattr(module, "fused_attn", False) is True]
    for module in fused:
        module.fused_attn = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]
