"""The device, and how a network is run on it."""

import ctypes
import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from vit_vs_cnn.config.schema import TrainSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.models.attention import unfused_attention

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def choose_device(settings: TrainSettings) -> torch.device:
    """The device that the settings ask for. Raises UserError where CUDA is asked for and not there, or too few GPUs."""
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
    """The name of the device for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def make_fabric(device: torch.device, precision: Precision, devices: int = 1) -> Fabric:
    """Fabric on one device, launched; on several it waits for `launch` with what each process is to do."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if device.type == "cpu":
        keep_freed_memory()
    if devices > 1:
        # Buffers are batch norm's statistics: the trainer averages them, where PyTorch would take the first process's.
        strategy = DDPStrategy(start_method="spawn", broadcast_buffers=False)
        return Fabric(accelerator=device.type, devices=devices, precision=precision, strategy=strategy)
    fabric = Fabric(accelerator=device.type, devices=1, precision=precision)
    fabric.launch()
    return fabric


def fastest_attention(network: nn.Module, device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Meanwhile `network` computes attention in the way that trains fastest.

    On a CPU the backward pass of PyTorch's fused attention in bf16 takes most of a step: a ViT of width 128 trains 1.8
    times as fast without (PyTorch 2.15, AVX-512; benchmarks/profile_epoch.py shows the share).
    """
    slow = device.type == "cpu" and precision == "bf16-mixed"
    return unfused_attention(network) if slow else nullcontext()


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors for the next step.

    glibc would give every large block back to the kernel, and take it anew, page by page, a step later: a tenth of
    the time of a step (benchmarks/allocator.py). Other C libraries have no such call, or no such habit.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, -1)
