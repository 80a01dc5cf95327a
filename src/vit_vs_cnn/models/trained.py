"""A contestant after training: the network with its preprocessing, and its weights as safetensors."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from vit_vs_cnn.config.schema import ModelSettings, Settings
from vit_vs_cnn.core.errors import UserError, first_line
from vit_vs_cnn.core.paths import trained
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.models.build import create_model, input_size
from vit_vs_cnn.models.preprocess import Interpolation, Preprocess
from vit_vs_cnn.models.weights import checkpoint_configuration, is_pretrained

_TEMPERATURE = "temperature"


class TrainedModel(nn.Module):
    """Preprocessing, network and softmax in one: uint8 images (N, H, W, 3) to probabilities float32 (N, K).

    `preprocess` takes the images; `network` takes its result and gives logits (N, K), which are divided by the
    temperature: that changes how certain the model is, not what it predicts.
    """

    temperature: Tensor

    def __init__(self, network: nn.Module, preprocess: Preprocess, temperature: float = 1.0) -> None:
        super().__init__()
        self.network, self.preprocess = network, preprocess
        self.register_buffer("temperature", torch.tensor(temperature), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the class probabilities of a batch of any size."""
        return (self.logits(images) / self.temperature).softmax(dim=1)

    def logits(self, images: Tensor) -> Tensor:
        """Compute the network's own answers, float32 (N, K), before the temperature."""
        logits: Tensor = self.network(self.preprocess(images))
        return logits.float()

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """Compute the class probabilities without gradients."""
        return self.forward(images)


def preprocess_for(model: ModelSettings, info: DatasetInfo) -> Preprocess:
    """The preprocessing that belongs to a contestant on this data: pretrained weights bring theirs along.

    Their crop is for photographs, which it saves from a margin. It is used where it costs no resolution, so where the
    stored images are at least as large as what is cut. Small images, as CIFAR-10's 32 px at an input of 224 px, are cut
    around their object already; of them the network sees everything, in training as on test, as in the fine-tuning of
    Dosovitskiy et al. 2021 (arXiv 2010.11929) and Kolesnikov et al. 2020 (arXiv 1912.11370).
    """
    size, in_chans = input_size(model, info.image_size), info.decoding.in_chans
    if not is_pretrained(model):
        return Preprocess(_adapted(info.mean, in_chans), _adapted(info.std, in_chans), size)
    cfg = checkpoint_configuration(model)
    crop = cfg.crop_pct if info.image_size >= int(size / cfg.crop_pct) else 1.0
    interpolation: Interpolation = "bicubic" if cfg.interpolation == "bicubic" else "bilinear"
    return Preprocess(_adapted(cfg.mean, in_chans), _adapted(cfg.std, in_chans), size, interpolation, crop)


def save_weights(model: TrainedModel, path: Path) -> None:
    """Write the network's parameters and buffers as safetensors, with the temperature in the file's metadata."""
    save_model(model.network, str(path), {_TEMPERATURE: repr(model.temperature.item())})


def load_trained(settings: Settings, contestant: str, seed: int, info: DatasetInfo) -> TrainedModel:
    """Load a contestant with the weights of its training with `seed`, in evaluation mode on the CPU.

    Raises UserError where the weights are missing or belong to another architecture.
    """
    model = settings.model(contestant)
    path = trained(contestant, seed) / "weights.safetensors"
    if not path.is_file():
        raise UserError(f"{path}: no trained weights here; run `dvc repro train@{contestant}-{seed}` first.")
    key_path, in_chans = f"models.{contestant}", info.decoding.in_chans
    network = create_model(model, len(info.classes), info.image_size, key_path, in_chans)
    try:
        load_model(network, str(path))
        with safe_open(str(path), "pt") as file:
            # The weights of release 0.1 have none.
            temperature = float((file.metadata() or {}).get(_TEMPERATURE, 1.0))
    except SafetensorError as error:
        raise UserError(
            f"{path}: is damaged ({first_line(error)}); `dvc checkout --force {path.parent}` restores it, or "
            f"`dvc repro --force train@{contestant}-{seed}` makes it again."
        ) from None
    except RuntimeError:
        raise UserError(
            f"{path}: these weights are not of models.{contestant} as params.yaml has it; "
            f"run `dvc repro train@{contestant}-{seed}`."
        ) from None
    return TrainedModel(network, preprocess_for(model, info), temperature).eval()


def _adapted(values: Sequence[float], in_chans: int) -> Sequence[float]:
    """The mean or std of RGB for so many channels: for one of them their average, beside the sum of the weights."""
    return values if in_chans == len(values) else (sum(values) / len(values),)
