"""What kind of operations a network is made of, measured on one image."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# A part of the network is of the first kind whose word is in its class name, with all that is inside.
_KINDS = {"attention": "attention", "mlp": "MLPs"}
_CONVOLUTIONS = "convolutions"
_REST = "other"


def operation_shares(network: nn.Module, input_size: int, in_chans: int = 3) -> dict[str, float]:
    """Return the shares of attention, MLPs, convolutions and all other operations in a forward pass; they sum to 1.

    They are floating-point operations of one image (1, `in_chans`, `input_size`, `input_size`) as PyTorch counts them:
    matrix products, convolutions and attention. The projections of queries, keys and values belong to attention, the
    embedding of patches to the convolutions, the classifier to the others.
    """
    device = next(network.parameters()).device
    # PyTorch's counter asks the inputs of modules for gradients: a parameter as an input (attention pooling) breaks it.
    counted = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        counted(torch.zeros(1, in_chans, input_size, input_size, device=device))
    counts, root = counter.get_flop_counts(), type(network).__name__
    shares = dict.fromkeys((*_KINDS.values(), _CONVOLUTIONS, _REST), 0.0)
    convolutions = _convolutions(counts.get("Global", {}))
    for name, kind in _parts(network).items():
        part = counts.get(f"{root}.{name}", {})
        shares[kind] += sum(part.values())
        convolutions -= _convolutions(part)
    shares[_CONVOLUTIONS] = convolutions
    total = counter.get_total_flops()
    shares[_REST] = total - sum(shares.values())
    return {kind: operations / total for kind, operations in shares.items()} if total else shares


def _parts(network: nn.Module) -> dict[str, str]:
    """The kind of each attention and each MLP by its path in the network, without those inside of another."""
    parts: dict[str, str] = {}
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in parts)
        kind = next((kind for word, kind in _KINDS.items() if word in type(module).__name__.lower()), None)
        if name and kind and not inside:
            parts[name] = kind
    return parts


def _convolutions(counts: dict[object, int]) -> int:
    return sum(operations for operator, operations in counts.items() if operator == torch.ops.aten.convolution)
