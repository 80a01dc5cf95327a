"""The device that networks compute on; apart from training, which needs Fabric and so PyTorch's compiler."""

import torch

from vit_vs_cnn.config.schema import TrainSettings
from vit_vs_cnn.core.errors import UserError


def choose_device(settings: TrainSettings) -> torch.device:
    """The device that the settings ask for. Raises UserError where it is CUDA and missing, or has too few GPUs."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device: 'cuda' is set and PyTorch sees no CUDA device; use 'auto' or 'cpu'.")
    use_cuda = settings.device != "cpu" and torch.cuda.is_available()
    if use_cuda and settings.devices > torch.cuda.device_count():
        raise UserError(
            f"train.devices: {settings.devices} GPUs are to share each batch, and PyTorch sees "
            f"{torch.cuda.device_count()}."
        )
    return torch.device("cuda", 0) if use_cuda else torch.device("cpu")


def device_name(device: torch.device) -> str:
    """The name of the device, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
