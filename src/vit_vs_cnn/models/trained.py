"""A contestant after training: its weights as safetensors, and the network that carries them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from vit_vs_cnn.config.schema import ModelSettings, Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import trained
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.models.build import create_model, input_size
from vit_vs_cnn.models.preprocess import Preprocess
from vit_vs_cnn.models.weights import normalisation


@dataclass(frozen=True)
class TrainedModel:
    """`preprocess` takes uint8 images (N, H, W, 3); `network` takes its result and gives logits (N, K)."""

    network: nn.Module
    preprocess: Preprocess

    def to(self, device: torch.device | str) -> "TrainedModel":
        """The same model on `device`."""
        return TrainedModel(self.network.to(device), self.preprocess.to(device))

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities float32 (N, K) of uint8 images (N, H, W, 3)."""
        logits: Tensor = self.network(self.preprocess(images))
        return logits.float().softmax(dim=1)


def preprocess_for(model: ModelSettings, info: DatasetInfo) -> Preprocess:
    """The preprocessing that belongs to a contestant on this data."""
    mean, std = normalisation(model, info.mean, info.std)
    return Preprocess(mean, std, input_size(model, info.image_size))


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the network's parameters and buffers as safetensors."""
    save_model(network, str(path))


def load_trained(settings: Settings, name: str, info: DatasetInfo) -> TrainedModel:
    """Contestant `name` with the weights of trained/<name>, in evaluation mode on the CPU.

    Raises UserError where the weights are missing or belong to another architecture.
    """
    model = settings.model(name)
    path = trained(name) / "weights.safetensors"
    if not path.is_file():
        raise UserError(f"{path}: no trained weights here; run `dvc repro train@{name}` first.")
    network = create_model(model, len(info.classes), info.image_size, f"models.{name}")
    try:
        load_model(network, str(path))
    except (SafetensorError, RuntimeError):
        raise UserError(
            f"{path}: these weights are not of models.{name} as params.yaml has it; run `dvc repro train@{name}`."
        ) from None
    return TrainedModel(network.eval(), preprocess_for(model, info))
