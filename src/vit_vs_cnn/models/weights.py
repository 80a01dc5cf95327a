"""Pretrained weights, from the hub or from a local safetensors file, and what they were trained on."""

import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from httpx2 import TransportError
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import PretrainedCfg, adapt_input_conv, load_state_dict_from_hf
from torch import Tensor, nn

from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.core.errors import TransientError, UserError

# The words of timm's tags that name a data set, and its images as its authors count them.
_DATA_SETS = {
    "in1k": ("ImageNet-1k", 1_281_167),
    "mae": ("ImageNet-1k", 1_281_167),
    "fcmae": ("ImageNet-1k", 1_281_167),
    "in12k": ("ImageNet-12k", 12_000_000),
    "in21k": ("ImageNet-21k", 14_197_122),
    "in22k": ("ImageNet-21k", 14_197_122),
    "lvd142m": ("LVD-142M", 142_000_000),
    "jft": ("JFT-300M", 300_000_000),
    "openai": ("OpenAI's image-text pairs", 400_000_000),
    "laion400m": ("LAION-400M", 400_000_000),
    "ig1b": ("Instagram-1B", 940_000_000),
    "datacompxl": ("DataComp-1B", 1_400_000_000),
    "datacomp1b": ("DataComp-1B", 1_400_000_000),
    "laion2b": ("LAION-2B", 2_000_000_000),
    "dfn2b": ("DFN-2B", 2_000_000_000),
    "dfn5b": ("DFN-5B", 5_000_000_000),
    "webli": ("WebLI", 10_000_000_000),
}


@dataclass(frozen=True)
class Pretraining:
    """The data that a network has seen before its training here.

    `images` is the size of the largest data set: smaller ones are often parts of it. It is 0 where training starts from
    random weights and None where the data are unknown.
    """

    data: str
    images: int | None


def is_pretrained(model: ModelSettings) -> bool:
    """Whether training starts from pretrained weights."""
    return model.pretrained or model.weights is not None


def pretraining(model: ModelSettings) -> Pretraining:
    """What the weights that training starts from were trained on, as far as the tag of timm's name says it.

    A local file is taken for the one of `model.timm` if that has a tag, as in `resnet18.a1_in1k`, else for unknown.
    """
    if not is_pretrained(model):
        return Pretraining("none", 0)
    tag = checkpoint_configuration(model).tag if model.weights is None or "." in model.timm else None
    phases = (tag or "").split("_ft_")
    found = [[_DATA_SETS[word] for word in phase.split("_") if word in _DATA_SETS] for phase in phases]
    # What a checkpoint was fine-tuned on, after `_ft_`, says nothing about what it was trained on before.
    if not all(found):
        return Pretraining("unknown", None)
    data_sets = [data_set for of_phase in found for data_set in of_phase]
    return Pretraining(", ".join(dict.fromkeys(name for name, _ in data_sets)), max(images for _, images in data_sets))


def checkpoint_configuration(model: ModelSettings) -> PretrainedCfg:
    """Mean, std, interpolation and crop that the weights of `model` were trained with."""
    # An architecture without published weights takes timm's default, ImageNet's.
    return timm.get_pretrained_cfg(model.timm) or PretrainedCfg()


def load_pretrained_weights(network: nn.Module, model: ModelSettings, key_path: str) -> None:
    """Fill `network` with pretrained weights; a classifier of another number of classes stays random.

    Position embeddings are resampled to the network's grid by timm. `key_path` is the key that an error names. Raises
    UserError where the file cannot be read or does not fit, TransientError where the hub cannot be reached.
    """
    if model.weights is not None:
        source = f"{key_path}.weights: {model.weights}"
        _fill(network, _read_file(Path(model.weights), source), source)
    else:
        _fill(network, _download(model, key_path), f"{key_path}.pretrained: the checkpoint of {model.timm}")


def _download(model: ModelSettings, key_path: str) -> dict[str, Tensor]:
    cfg = checkpoint_configuration(model)
    try:
        if cfg.hf_hub_id:
            file = cfg.hf_hub_filename or constants.PYTORCH_WEIGHTS_NAME
            _require_hub(cfg.hf_hub_id, file)
            return dict(load_state_dict_from_hf(cfg.hf_hub_id, file))
        if isinstance(cfg.url, str):  # timm has a few from elsewhere
            return torch.hub.load_state_dict_from_url(cfg.url, map_location="cpu", progress=False, weights_only=True)
    except (OSError, TransportError) as error:
        raise TransientError(
            f"{key_path}.pretrained: the weights of {model.timm} cannot be had from {constants.ENDPOINT} "
            f"({_short(error)}). Two ways out: set {key_path}.weights to a local safetensors file of these weights, or "
            f"{key_path}.pretrained to false to train from scratch."
        ) from None
    # A damaged file in the hub's cache, of one of several formats.
    except (SafetensorError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        cache = constants.HF_HUB_CACHE if cfg.hf_hub_id else torch.hub.get_dir()
        raise UserError(
            f"{key_path}.pretrained: the weights of {model.timm} cannot be read ({_short(error)}): "
            f"delete them in {cache}, and they are downloaded again."
        ) from None
    raise UserError(
        f"{key_path}.pretrained: timm knows no pretrained weights for {model.timm}; set it to false, "
        f"or name a safetensors file in {key_path}.weights."
    )


def _read_file(path: Path, source: str) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise UserError(f"{source} is not a .safetensors file; other formats can carry code.")
    if not path.is_file():
        raise UserError(f"{source} {'is a folder' if path.is_dir() else 'does not exist'}; name a file of weights.")
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{source} is not a readable safetensors file ({_short(error)}): fetch it again.") from None


def _fill(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state whole, but for a classifier of other classes; timm would let other keys be missing with it."""
    own, classifier = network.state_dict(), _keys_of(network, "classifier")
    checkpoint_filter = _checkpoint_filter(network)
    try:
        if checkpoint_filter is not None:
            state = checkpoint_filter(state, network)
        for key in _keys_of(network, "first_conv") & state.keys() & own.keys():
            # Weights of RGB images in a network of grey ones: their sum, which gives the same for three equal channels.
            if state[key].ndim == 4 and state[key].shape[1] > own[key].shape[1]:
                state[key] = adapt_input_conv(1, state[key])
        for key in classifier & state.keys() & own.keys():
            if state[key].shape != own[key].shape:
                del state[key]
        missing, unexpected = network.load_state_dict(state, strict=False)
    # A foreign state makes timm's filters fail in many ways; each of them means that it does not fit.
    except Exception as error:
        raise UserError(f"{source} does not fit the network: {_short(error)}.") from None
    wrong = [f"{key} is missing" for key in missing if key not in classifier]
    wrong += [f"{key} is not in the network" for key in unexpected if key not in classifier]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"{source} does not fit the network: {'; '.join(wrong[:3])}{more}.")


def _keys_of(network: nn.Module, part: str) -> set[str]:
    """The parameters of the layers that timm calls the `classifier` or the `first_conv` of an architecture."""
    names = (getattr(network, "pretrained_cfg", None) or {}).get(part) or ()
    return {f"{name}.{kind}" for name in ([names] if isinstance(names, str) else names) for kind in ("weight", "bias")}


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")


def _require_hub(repository: str, file: str) -> None:
    """Raise OSError where the hub is unreachable and needed: its client would retry for most of a minute."""
    hub, names = urlsplit(constants.ENDPOINT), (file, "model.safetensors", "open_clip_model.safetensors")
    is_cached = any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)
    if is_cached or hub.scheme in getproxies():  # a proxy knows the way, of which a connection from here says nothing
        return
    socket.create_connection((hub.hostname or "", hub.port or (80 if hub.scheme == "http" else 443)), 5).close()


def _checkpoint_filter(network: nn.Module) -> Any:
    """The function of the architecture's timm module that adapts a checkpoint (names, position embeddings)."""
    return getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
