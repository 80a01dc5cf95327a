"""A timm network from a contestant's settings."""

import difflib
from itertools import pairwise
from typing import Any

import timm
import torch
from timm.layers import to_2tuple
from timm.models import get_arch_name
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.core.errors import UserError, first_line
from vit_vs_cnn.models import airbench  # noqa: F401 - registers its networks in timm


def input_size(model: ModelSettings, image_size: int) -> int:
    """Side in pixels of the square images that the network sees."""
    return model.input_size or image_size


def create_model(
    model: ModelSettings, num_classes: int, image_size: int, key_path: str = "models", in_chans: int = 3
) -> nn.Module:
    """Build the network with random weights: float32 (N, in_chans, S, S) in, logits (N, num_classes) out.

    `key_path` is the key that an error names. Raises UserError for a name that timm does not have, arguments that the
    architecture refuses, or a stem that does not fit it.
    """
    _require_known_name(model.timm, key_path)
    size = input_size(model, image_size)
    arguments: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in model.args.items()
    }
    cfg = timm.get_pretrained_cfg(model.timm)
    if cfg and cfg.fixed_input_size:  # as of most transformers
        arguments.setdefault("img_size", size)
    if in_chans != 3:
        arguments["in_chans"] = in_chans
    try:
        network: nn.Module = timm.create_model(model.timm, pretrained=False, num_classes=num_classes, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError) as error:
        raise UserError(
            f"{key_path}.args: {model.timm} cannot be built with {arguments}: {first_line(error)}."
        ) from None
    _require_whole_patches(network, size, key_path)
    if model.stem == "cifar":
        _use_cifar_stem(network, key_path)
    elif model.stem == "conv":
        _use_conv_stem(network, key_path)
    if model.freeze_backbone:
        network.requires_grad_(False)
        classifier_layers(network).requires_grad_(True)
    return network


def classifier_layers(network: nn.Module) -> nn.ModuleList:
    """The last layer of a timm network, or the last layers of a distilled one, which has two classifiers."""
    classifier = network.get_classifier()  # type: ignore[operator]
    return nn.ModuleList(classifier if isinstance(classifier, tuple) else (classifier,))


def check_model(
    model: ModelSettings, num_classes: int, image_size: int, key_path: str, in_chans: int = 3
) -> tuple[int, int]:
    """Build the network without memory and run it on a shapeless batch. Raises UserError where it does not fit.

    Returns the floating-point operations for one image, as PyTorch counts them, and the number of parameters.
    """
    with torch.device("meta"), torch.no_grad():
        # The counter asks inputs for gradients: a parameter as an input (attention pooling) breaks it.
        network = create_model(model, num_classes, image_size, key_path, in_chans).eval().requires_grad_(False)
        size = input_size(model, image_size)
        try:
            with FlopCounterMode(display=False) as counter:
                network(torch.empty(2, in_chans, size, size))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UserError(
                f"{key_path}: {model.timm} does not take images of {size} px ({first_line(error)}); "
                f"change {key_path}.input_size, {key_path}.args or data.image_size."
            ) from None
    return int(counter.get_total_flops()) // 2, sum(parameter.numel() for parameter in network.parameters())


def _require_known_name(name: str, key_path: str) -> None:
    """The name of an architecture, or of one with the tag of its pretrained weights, `resnet18.a1_in1k`."""
    architecture = get_arch_name(name)
    if not timm.is_model(name):
        nearest = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
    elif name not in (architecture, *(tagged := timm.list_pretrained(f"{architecture}.*"))):
        nearest = difflib.get_close_matches(name, tagged, n=3, cutoff=0.0)
    else:
        return
    hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
    raise UserError(f"{key_path}.timm: timm has no model {name!r}{hint}.")


def _require_whole_patches(network: nn.Module, size: int, key_path: str) -> None:
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if patch is not None and any(size % side for side in to_2tuple(patch)):
        side = to_2tuple(patch)[0]
        raise UserError(
            f"{key_path}: an image of {size} px cannot be cut into patches of {side} px: choose "
            f"{key_path}.input_size as a multiple of {side}, or {key_path}.args.patch_size as a divisor of {size}."
        )


def _use_cifar_stem(network: nn.Module, key_path: str) -> None:
    """He et al. 2016, section 4.2: small images keep their resolution (3×3 convolution, stride 1, no pooling)."""
    conv = getattr(network, "conv1", None)
    if not isinstance(conv, nn.Conv2d) or not hasattr(network, "maxpool"):
        raise UserError(f"{key_path}.stem: 'cifar' is for timm's ResNets with a plain first convolution; use 'timm'.")
    network.conv1 = nn.Conv2d(conv.in_channels, conv.out_channels, kernel_size=3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")


def _use_conv_stem(network: nn.Module, key_path: str) -> None:
    """Small convolutions embed the patches, as in Hassani et al. 2021 (arXiv 2104.05704), and mix the tokens.

    Each of the first is followed by a pooling that halves the resolution; the last of them is as wide as the tokens,
    those before it half as wide each. Two more follow at the resolution of the tokens, in about the place of the one
    transformer block that Xiao et al. 2021 (arXiv 2106.14881) trade for such a stem.
    """
    conv = getattr(getattr(network, "patch_embed", None), "proj", None)
    sides = {*conv.kernel_size, *conv.stride} if isinstance(conv, nn.Conv2d) else set()
    if not isinstance(conv, nn.Conv2d) or len(sides) != 1 or conv.stride[0].bit_count() != 1:
        raise UserError(
            f"{key_path}.stem: 'conv' is for timm's vision transformers whose patch size is a power of 2; use 'timm'."
        )
    halvings, tokens = conv.stride[0].bit_length() - 1, conv.out_channels
    widths = [conv.in_channels, *(tokens >> step for step in reversed(range(halvings))), tokens, tokens]
    layers: list[nn.Module] = []
    for step, (channels, wider) in enumerate(pairwise(widths)):
        layers.append(nn.Conv2d(channels, wider, 3, padding=1, bias=False))
        if step < halvings:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        layers += [nn.BatchNorm2d(wider), nn.GELU()]
    network.patch_embed.proj = nn.Sequential(*layers)  # type: ignore[union-attr]
