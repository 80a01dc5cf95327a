"""What a training runs on (device, precision, compilation), and how a network is run there."""

import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from vit_vs_cnn.config.schema import ModelSettings, Settings, TrainSettings
from vit_vs_cnn.core.devices import cpu_has_bf16
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import DatasetInfo, Split
from vit_vs_cnn.models.preprocess import Preprocess
from vit_vs_cnn.training.device import choose_device, device_name

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
# How long a node waits for one that does not come, or does not answer any more.
_NODE_TIMEOUT = timedelta(minutes=5)
_MEETING_PLACE = ("MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Plan:
    """What a training runs on.

    The (first) device and its name, how many devices of each node share each batch, Fabric's precision, whether the
    network is compiled by torch.compile, whether only deterministic algorithms are used, and how many nodes there are.
    """

    device: torch.device
    device_name: str
    devices: int
    precision: Precision
    compiled: bool
    deterministic: bool = True
    nodes: int = 1

    @property
    def processes(self) -> int:
        """How many processes share each batch, one for each device of every node."""
        return self.devices * self.nodes


@dataclass(frozen=True)
class TrainingJob:
    """All that a training needs; it is pickled on its way to the processes that share a training.

    `network` has the starting weights and is trained in place. The epoch is chosen on `val`; with `refit_epochs` none
    is: `train` has all images, and the training ends after so many epochs of the budget. `quiet` omits the progress bar
    and the lines, where the training is a part of something that shows its own.
    """

    settings: Settings
    contestant: str
    info: DatasetInfo
    train: Split
    val: Split
    network: nn.Module
    preprocess: Preprocess
    plan: Plan
    quiet: bool = False
    refit_epochs: int | None = None

    @property
    def model(self) -> ModelSettings:
        """The settings of the contestant."""
        return self.settings.model(self.contestant)

    @property
    def key_path(self) -> str:
        """The key of the contestant in params.yaml, for errors."""
        return f"models.{self.contestant}"


def make_plan(settings: TrainSettings) -> Plan:
    """Choose device and precision by the settings. Raises what `choose_device` raises."""
    device = choose_device(settings)
    precision = _fastest_precision(device) if settings.precision == "auto" else settings.precision
    deterministic = settings.deterministic or device.type == "cpu"  # where it costs next to nothing
    return Plan(
        device, device_name(device), settings.devices, precision, settings.compile, deterministic, settings.nodes
    )


def node_rank(plan: Plan) -> int:
    """Which of the nodes this is, by NODE_RANK or torchrun's GROUP_RANK; the first has the results.

    Raises UserError where PyTorch's variables do not say where the nodes meet.
    """
    if plan.nodes == 1:
        return 0
    rank = os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK", "")
    missing = [name for name in _MEETING_PLACE if not os.environ.get(name)] + ([] if rank else ["NODE_RANK"])
    if missing or not rank.isdecimal() or int(rank) >= plan.nodes:
        wrong = f"{', '.join(missing)} not set" if missing else f"NODE_RANK={rank}"
        raise UserError(
            f"train.nodes: {plan.nodes} nodes, and {wrong}: on each export MASTER_ADDR and MASTER_PORT, a free port of "
            f"the first node, and NODE_RANK, from 0 to {plan.nodes - 1}."
        )
    return int(rank)


def _fastest_precision(device: torch.device) -> Precision:
    """Bf16 where the hardware multiplies it: GPUs since Ampere, CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.get_device_capability(device) >= (8, 0) else "32-true"
    return "bf16-mixed" if cpu_has_bf16() else "32-true"


def make_fabric(plan: Plan) -> Fabric:
    """Fabric on one device, launched; on several it waits for `launch` with the function that each process runs."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    use_deterministic_algorithms(plan)
    if plan.device.type == "cpu":
        keep_freed_memory()
    # Buffers are batch norm's statistics: the trainer averages them, where PyTorch would take the first process's.
    strategy: DDPStrategy | str = "auto"
    if plan.processes > 1:
        options: dict[str, Any] = {"timeout": _NODE_TIMEOUT} if plan.nodes > 1 else {}
        strategy = DDPStrategy(start_method="spawn", broadcast_buffers=False, **options)
    fabric = Fabric(
        accelerator=plan.device.type,
        devices=plan.devices,
        num_nodes=plan.nodes,
        precision=plan.precision,
        strategy=strategy,
        # A node starts its processes itself, whatever has started the node: torchrun, Slurm, a person.
        plugins=[LightningEnvironment()],
    )
    if plan.processes == 1:
        fabric.launch()
    return fabric


def use_deterministic_algorithms(plan: Plan) -> None:
    """Have this process compute the same from the same seed, where the plan says so and PyTorch can; else it warns."""
    if plan.deterministic:
        # cuBLAS is deterministic with this workspace only, and reads it with the first multiplication.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(plan.deterministic, warn_only=True)


@contextmanager
def fastest_attention(network: nn.Module, plan: Plan) -> Iterator[None]:
    """Let a timm network compute attention in the way that trains fastest; the results are the same.

    On a CPU the backward pass of PyTorch's fused attention in bf16 takes most of a step: a ViT of width 128 trains 1.8
    times as fast without (PyTorch 2.15, AVX-512; benchmarks/profile_epoch.py shows the share).
    """
    fused = []
    if plan.device.type == "cpu" and plan.precision == "bf16-mixed":
        fused = [module for module in network.modules() if getattr(module, "fused_attn", False) is True]
    for module in fused:
        module.fused_attn = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]


@contextmanager
def gradient_checkpointing(network: nn.Module, enabled: bool, key_path: str) -> Iterator[None]:
    """Let a timm network compute activations again for the gradients (Chen et al. 2016, arXiv 1604.06174), if enabled.

    The results are the same where batch norm's statistics are kept from the second computation (`Gradients`). Raises
    UserError where the architecture cannot.
    """
    if not enabled:
        yield
        return
    try:
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError, NotImplementedError):
        raise UserError(
            f"train.checkpoint_gradients: the architecture of {key_path}.timm does not support it; set it to false."
        ) from None
    try:
        yield
    finally:
        network.set_grad_checkpointing(False)  # type: ignore[operator]


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors for the next step.

    glibc would return every large block to the kernel and request it again, page by page, a step later: a tenth of
    the time of a step (benchmarks/allocator.py). Other C libraries have no such call, or no such habit.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, -1)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the device's memory did not suffice."""
    # PyTorch's allocator on the CPU has no error of its own.
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def is_compile_error(error: RuntimeError) -> bool:
    """Whether torch.compile could not compile."""
    # Nothing public says so, and the module is loaded already where something was compiled.
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)
