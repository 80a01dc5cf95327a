"""What a contestant will be trained on and how: measured, not assumed."""

import copy
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vit_vs_cnn.config.schema import ModelSettings, TrainSettings
from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.core.records import digest_of
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.models.build import input_size
from vit_vs_cnn.training.device import Precision, choose_device, device_name, fastest_attention, make_fabric

# Lower precision must pay clearly before it is taken. The candidates take turns and the fastest step of each counts:
# on a busy machine every other statistic measures the neighbours.
_WORTHWHILE_SPEEDUP = 1.3
_TIMED_STEPS = 4
# As many pixels as 16 images of 224 px have, but no more images than these.
_TIMED_PIXELS = 16 * 224**2
_MOST_TIMED_IMAGES = 128
# Compiling takes about a minute, so trying it costs a longer training a few percent at most.
_LONG_ENOUGH_TO_TRY_SECONDS = 1200
_WORTHWHILE_PART_OF_PLAIN = 0.95


@dataclass(frozen=True)
class Plan:
    """What training will run on.

    The (first) device and its name, how many share each batch, Fabric's precision, the measured seconds per image
    (forward + backward) of one of them, and whether torch.compile makes the network's code.
    """

    device: torch.device
    device_name: str
    devices: int
    precision: Precision
    seconds_per_image: float
    compiled: bool


def make_plan(network: nn.Module, model: ModelSettings, settings: TrainSettings, info: DatasetInfo) -> Plan:
    """Choose device, precision and compilation for `network` by timing a few steps.

    What was measured is remembered per machine, network and version of PyTorch, so a run that is started again takes
    the same plan.
    """
    device = choose_device(settings)
    name, size = device_name(device), input_size(model, info.image_size)
    batch = min(model.recipe.batch_size, _MOST_TIMED_IMAGES, max(2, _TIMED_PIXELS // size**2))
    shape = (batch, 3, size, size)
    facts = [name, torch.__version__, model.timm, model.args, model.stem, shape]
    chosen = _remembered([*facts, settings.precision], lambda: _choose_precision(network, settings, device, shape))
    precision, seconds_per_image = chosen["precision"], chosen["seconds_per_image"]
    compiled = settings.compile is True
    images = info.splits["train"].images * settings.epochs / settings.devices
    if settings.compile == "auto" and images * seconds_per_image > _LONG_ENOUGH_TO_TRY_SECONDS:
        tried = _remembered([*facts, precision, "compiled"], lambda: _try_compiling(network, precision, device, shape))
        compiled = _pays(tried, images)
    return Plan(device, name, settings.devices, precision, seconds_per_image, compiled)


def _remembered(identity: list[Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    file = state_dir() / "measured" / f"{digest_of(json.dumps(identity).encode())}.json"
    if file.is_file():
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return known
    measured = measure()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(measured), encoding="utf-8")
    return measured


def _choose_precision(
    network: nn.Module, settings: TrainSettings, device: torch.device, shape: tuple[int, ...]
) -> dict[str, Any]:
    candidates: list[Precision] = ["32-true", "bf16-mixed"] if settings.precision == "auto" else [settings.precision]
    steps: dict[str, Callable[[], None]] = {each: _step(network, each, device, shape) for each in candidates}
    timings = _take_turns(steps, device)
    seconds = {each: timings[each].fastest for each in candidates}
    best = min(seconds, key=lambda each: seconds[each])
    if settings.precision == "auto" and seconds["32-true"] < seconds[best] * _WORTHWHILE_SPEEDUP:
        best = "32-true"
    return {"precision": best, "seconds_per_image": seconds[best] / shape[0], "step_seconds": seconds}


def _try_compiling(
    network: nn.Module, precision: Precision, device: torch.device, shape: tuple[int, ...]
) -> dict[str, Any]:
    steps = {
        "plain": _step(network, precision, device, shape),
        "compiled": _step(network, precision, device, shape, compiled=True),
    }
    try:
        timings = _take_turns(steps, device)
    except RuntimeError as error:  # among them all of torch.compile's own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"note: torch.compile does not work here ({reason}); training goes on without it.", file=sys.stderr)
        return {"failed": reason}
    return {
        "compile_seconds": timings["compiled"].first,
        **{f"{each}_seconds_per_image": timing.fastest / shape[0] for each, timing in timings.items()},
    }


def _pays(tried: dict[str, Any], images: float) -> bool:
    if "failed" in tried:
        return False
    plain, compiled = (images * tried[f"{each}_seconds_per_image"] for each in ("plain", "compiled"))
    return bool(tried["compile_seconds"] + compiled < _WORTHWHILE_PART_OF_PLAIN * plain)


@dataclass(frozen=True)
class _Timing:
    """Seconds of the first step, which allocates or compiles, and of the fastest of the others."""

    first: float
    fastest: float


def _take_turns(steps: Mapping[str, Callable[[], None]], device: torch.device) -> dict[str, _Timing]:
    seconds: dict[str, list[float]] = {each: [] for each in steps}
    for _ in range(1 + _TIMED_STEPS):
        for each, step in steps.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[each].append(time.perf_counter() - start)
    return {each: _Timing(first, min(others)) for each, (first, *others) in seconds.items()}


def _step(
    network: nn.Module, precision: Precision, device: torch.device, shape: tuple[int, ...], *, compiled: bool = False
) -> Callable[[], None]:
    """Forward and backward of a copy of `network`."""
    inputs = torch.randn(shape, device=device).to(memory_format=torch.channels_last)
    labels = torch.zeros(len(inputs), dtype=torch.long, device=device)
    fabric, trial = make_fabric(device, precision), copy.deepcopy(network).to(memory_format=torch.channels_last)
    stepped: Any = torch.compile(trial) if compiled else trial
    stepper = fabric.setup(stepped)

    def step() -> None:
        with fastest_attention(trial, device, precision):
            fabric.backward(functional.cross_entropy(stepper(inputs), labels))

    return step
