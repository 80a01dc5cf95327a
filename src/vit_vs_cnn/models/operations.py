"""What kind of operations a network is made of, measured on one image."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

_ATTENTION, _MLPS, _CONVOLUTIONS, _REST = "attention", "MLPs", "convolutions", "other"
# Products of two activations: queries by keys, attention by values. Attention to channels alone has none.
_PRODUCTS = ("bmm", "scaled_dot_product")

Counts = Mapping[Any, int]


def operation_shares(network: nn.Module, input_size: int, in_chans: int = 3) -> dict[str, float]:
    """Return the shares of attention, MLPs, convolutions and all other operations in a forward pass; they sum to 1.

    They are floating-point operations of one image (1, `in_chans`, `input_size`, `input_size`) as PyTorch counts them:
    matrix products, convolutions and attention. The projections of queries, keys and values belong to attention, the
    embedding of patches to the convolutions, the classifier to the others. A part is known by its class and by the name
    that timm's blocks give it, with all that is inside.
    """
    device = next(network.parameters()).device
    # PyTorch's counter asks the inputs of modules for gradients: a parameter as an input (attention pooling) breaks it.
    counted = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        counted(torch.zeros(1, in_chans, input_size, input_size, device=device))
    counts, root = counter.get_flop_counts(), type(network).__name__
    counts = {name.removeprefix(f"{root}."): part for name, part in counts.items()}
    shares = dict.fromkeys((_ATTENTION, _MLPS, _CONVOLUTIONS, _REST), 0.0)
    convolutions = _convolutions(counts.get("Global", {}))
    for name, kind in _parts(network, counts).items():
        part = counts.get(name, {})
        shares[kind] += sum(part.values())
        convolutions -= _convolutions(part)
    shares[_CONVOLUTIONS] = convolutions
    total = counter.get_total_flops()
    shares[_REST] = total - sum(shares.values())
    return {kind: operations / total for kind, operations in shares.items()} if total else shares


def _parts(network: nn.Module, counts: Mapping[str, Counts]) -> dict[str, str]:
    """The kind of each attention and each MLP by its path in the network, without those inside of another."""
    parts: dict[str, str] = {}
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in parts)
        kind = None if inside or not name else _kind(name, module, counts)
        if kind:
            parts[name] = kind
    return parts


def _kind(name: str, module: nn.Module, counts: Mapping[str, Counts]) -> str | None:
    own, word = name.rpartition(".")[2], type(module).__name__.lower()
    if own == "mlp" or "mlp" in word:
        return _MLPS
    inner = {_kind(f"{name}.{child}", part, counts) for child, part in module.named_children()}
    if "attention" in word:
        return None if {_ATTENTION, _MLPS} <= inner else _ATTENTION  # a block of both is neither
    multiplies = any(product in str(operator) for operator in counts.get(name, {}) for product in _PRODUCTS)
    return _ATTENTION if (own == "attn" or "attn" in word) and multiplies and _MLPS not in inner else None


def _convolutions(counts: Counts) -> int:
    return sum(operations for operator, operations in counts.items() if operator == torch.ops.aten.convolution)
