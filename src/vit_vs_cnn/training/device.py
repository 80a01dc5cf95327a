"""The device and the precision: measured, not assumed."""

import copy
import json
import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn
from torch.nn import functional

from vit_vs_cnn.config import ModelSettings, TrainSettings
from vit_vs_cnn.data.prepared import DatasetInfo
from vit_vs_cnn.errors import UserError
from vit_vs_cnn.layout import state_dir
from vit_vs_cnn.models.attention import unfused_attention
from vit_vs_cnn.models.build import input_size
from vit_vs_cnn.tracking.lineage import digest_of

# Lower precision must pay clearly before it is taken. The candidates take turns and the fastest step of each counts:
# on a busy machine every other statistic measures the neighbours.
_WORTHWHILE_SPEEDUP = 1.3
_TIMED_STEPS = 4
# As many pixels as 16 images of 224 px have, but no more images than these.
_TIMED_PIXELS = 16 * 224**2
_MOST_TIMED_IMAGES = 128


Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class Plan:
    """What training will run on.

    The (first) device and its name, how many share each batch, Fabric's precision, and the measured seconds per image
    (forward + backward) of one of them.
    """

    device: torch.device
    device_name: str
    devices: int
    precision: Precision
    seconds_per_image: float


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


def make_plan(network: nn.Module, model: ModelSettings, settings: TrainSettings, info: DatasetInfo) -> Plan:
    """Choose device and precision for `network` by timing a few steps.

    The choice is remembered per machine, network and version of PyTorch, so a run that is started again takes the
    same one.
    """
    device = choose_device(settings)
    name = device_name(device)
    network_facts = [model.timm, model.args, model.stem, model.input_size, info.image_size, model.recipe.batch_size]
    identity = [name, torch.__version__, *network_facts, settings.precision]
    memory = state_dir() / "measured" / f"{digest_of(json.dumps(identity).encode())}.json"
    if memory.is_file():
        known = json.loads(memory.read_text(encoding="utf-8"))
        return Plan(device, name, settings.devices, known["precision"], known["seconds_per_image"])
    candidates: list[Precision] = ["32-true", "bf16-mixed"] if settings.precision == "auto" else [settings.precision]
    size = input_size(model, info.image_size)
    batch = min(model.recipe.batch_size, _MOST_TIMED_IMAGES, max(2, _TIMED_PIXELS // size**2))
    timings = _seconds_per_image(network, candidates, device, (batch, 3, size, size))
    best = min(timings, key=lambda each: timings[each])
    if settings.precision == "auto" and timings["32-true"] < timings[best] * _WORTHWHILE_SPEEDUP:
        best = "32-true"
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(json.dumps({"precision": best, "seconds_per_image": timings[best], "timings": timings}))
    return Plan(device, name, settings.devices, best, timings[best])


def make_fabric(device: torch.device, precision: Precision, devices: int = 1) -> Fabric:
    """Fabric on one device, launched; on several it waits for `launch` with what each process is to do."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
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


def _seconds_per_image(
    network: nn.Module, candidates: list[Precision], device: torch.device, shape: tuple[int, int, int, int]
) -> dict[Precision, float]:
    inputs = torch.randn(shape, device=device).to(memory_format=torch.channels_last)
    labels = torch.zeros(len(inputs), dtype=torch.long, device=device)
    fabrics = {each: make_fabric(device, each) for each in candidates}
    trials = {
        each: fabric.setup(copy.deepcopy(network).to(memory_format=torch.channels_last))
        for each, fabric in fabrics.items()
    }
    fastest = dict.fromkeys(candidates, float("inf"))
    for step in range(1 + _TIMED_STEPS):
        for each, fabric in fabrics.items():
            start = time.perf_counter()
            with fastest_attention(trials[each], device, each):
                fabric.backward(functional.cross_entropy(trials[each](inputs), labels))
            if device.type == "cuda":
                torch.cuda.synchronize()
            if step > 0:  # the first one allocates
                fastest[each] = min(fastest[each], time.perf_counter() - start)
    return {each: seconds / len(inputs) for each, seconds in fastest.items()}
