"""Pretrained weights, from the hub or from a local safetensors file."""

import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import timm
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import PretrainedCfg, load_pretrained
from torch import nn

from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.core.errors import TransientError, UserError

Channels = Sequence[float]


def is_pretrained(model: ModelSettings) -> bool:
    """Whether training starts from pretrained weights."""
    return model.pretrained or model.weights is not None


def normalisation(model: ModelSettings, mean: Channels, std: Channels) -> tuple[Channels, Channels]:
    """Mean and std of the input: those of the pretrained weights, otherwise the data set's `mean` and `std`."""
    if not is_pretrained(model):
        return mean, std
    # An architecture without published weights takes ImageNet's, timm's default.
    cfg = timm.get_pretrained_cfg(model.timm) or PretrainedCfg()
    return cfg.mean, cfg.std


def load_pretrained_weights(network: nn.Module, model: ModelSettings, num_classes: int, key_path: str) -> None:
    """Fill `network` with pretrained weights; the classifier stays random unless it fits `num_classes`.

    Position embeddings are resampled to the network's grid by timm. `key_path` is the key that an error names. Raises
    UserError where the file cannot be read or does not fit, TransientError where the hub cannot be reached.
    """
    if model.weights is not None:
        _load_file(network, Path(model.weights), f"{key_path}.weights: {model.weights}")
        return
    cfg: dict[str, Any] = dict(getattr(network, "pretrained_cfg", {}))
    if not cfg.get("hf_hub_id") and not cfg.get("url"):
        raise UserError(
            f"{key_path}.pretrained: timm knows no pretrained weights for {model.timm}; set it to false, "
            f"or name a safetensors file in {key_path}.weights."
        )
    try:
        _require_hub(cfg.get("hf_hub_id"))
        load_pretrained(network, cfg, num_classes=num_classes, in_chans=3, filter_fn=_checkpoint_filter(network))
    except OSError:
        raise TransientError(
            f"{key_path}.pretrained: the hub ({constants.ENDPOINT}) cannot be reached for the weights of {model.timm}. "
            f"Two ways out: set {key_path}.weights to a local safetensors file of these weights, or "
            f"{key_path}.pretrained to false to train from scratch."
        ) from None
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{key_path}.pretrained: the hub's weights do not fit {model.timm}: {_short(error)}.") from None


def _load_file(network: nn.Module, path: Path, key_path: str) -> None:
    """Load a file whole, but for a classifier of other classes; timm would let other keys be missing with it."""
    if path.suffix != ".safetensors":
        raise UserError(f"{key_path} is not a .safetensors file; other formats can carry code.")
    if not path.is_file():
        raise UserError(f"{key_path} does not exist.")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{key_path} is not a readable safetensors file ({_short(error)}).") from None
    own, classifier = network.state_dict(), _classifier_keys(network)
    checkpoint_filter = _checkpoint_filter(network)
    try:
        if checkpoint_filter is not None:
            state = checkpoint_filter(state, network)
        for key in classifier & state.keys() & own.keys():
            if state[key].shape != own[key].shape:
                del state[key]
        missing, unexpected = network.load_state_dict(state, strict=False)
    # A foreign file makes timm's filters fail in many ways; each of them means that it does not fit.
    except Exception as error:
        raise UserError(f"{key_path} does not fit the network: {_short(error)}.") from None
    wrong = [f"{key} is missing" for key in missing if key not in classifier]
    wrong += [f"{key} is not in the network" for key in unexpected if key not in classifier]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"{key_path} does not fit the network: {'; '.join(wrong[:3])}{more}.")


def _classifier_keys(network: nn.Module) -> set[str]:
    names = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    return {f"{name}.{part}" for name in ([names] if isinstance(names, str) else names) for part in ("weight", "bias")}


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")


def _require_hub(repository: str | None) -> None:
    """Raise OSError where the hub is unreachable and needed: its client would retry for most of a minute."""
    if not repository or any(
        isinstance(try_to_load_from_cache(repository, name), str) for name in ("model.safetensors", "pytorch_model.bin")
    ):
        return
    hub = urlsplit(constants.ENDPOINT)
    socket.create_connection((hub.hostname or "", hub.port or (80 if hub.scheme == "http" else 443)), 5).close()


def _checkpoint_filter(network: nn.Module) -> Any:
    """The function of the architecture's timm module that adapts a checkpoint (names, position embeddings)."""
    return getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
