"""How long stages take on this machine: as long as with the same settings before, or about as long as a rule says."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.devices import accelerators, cpu_has_bf16
from vit_vs_cnn.core.paths import main_root, state_dir
from vit_vs_cnn.core.records import Record, digest_of
from vit_vs_cnn.data.object_store import is_in_store
from vit_vs_cnn.orchestration.dag import Stage
from vit_vs_cnn.orchestration.image_counts import Images
from vit_vs_cnn.orchestration.request import NetworkSize

# What a stage takes beside its images: imports, figures, timing.
_FIXED_SECONDS = {"prepare": 3.0, "tune": 1.0, "cost": 8.0, "register": 4.0}
_FIXED_SECONDS_OF_OTHERS = 5.0
_SECONDS_PER_IMAGE_READ = 0.001
# Floating-point operations per second of a core and of a GPU; in bf16, a core that has it multiplies twice as fast.
# Beside them a GPU needs some time for each image, and a CPU for each batch. The presets' networks take half to twice
# as long (docs/performance.md).
_CPU_RATE, _CPU_SECONDS_PER_BATCH = 1e11, 0.01
_GPU_RATE, _GPU_SECONDS_PER_PASS = 5e13, 0.00001
# A step of training in forward passes, and conditions of robustness.
_PASSES_OF_STEP = 3
_CONDITIONS = 53
_PASSES_OF_VIEWS = {1: 1, "flip": 3, 6: 7}
# Images whose maps `explain` measures, each in so many steps of deletion, for one kind of map or two.
_EXPLAINED, _PASSES_OF_EXPLANATION = 64, 150
# What `cost` spends on batches at most, after a first one of each contestant, and in how many rounds.
_COST_SECONDS, _COST_ROUNDS = 120.0, 5


class Duration(Record):
    """How many seconds a stage took."""

    stage: str
    seconds: float


def record_duration(stage: Stage, data: DataSettings, seconds: float) -> None:
    """Remember how long the stage took with its settings on such data."""
    path = _file(stage, data)
    path.parent.mkdir(exist_ok=True)
    Duration(stage=stage.name, seconds=seconds).write(path)


def recorded_duration(stage: Stage, data: DataSettings) -> float | None:
    """How many seconds the stage took with these settings on such data, None if it has not run with them."""
    path = _file(stage, data)
    return Duration.read(path, "delete it").seconds if path.is_file() else None


@contextmanager
def attempt(stage: Stage, data: DataSettings) -> Iterator[bool]:
    """Whether nothing is left of an attempt that failed or was killed: one that resumes takes a part of the time."""
    mark = _file(stage, data).with_suffix(".begun")
    is_whole = not mark.exists()
    with suppress(OSError):  # the stage says that the disk cannot be written
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
    yield is_whole
    with suppress(OSError):
        mark.unlink(missing_ok=True)


def _file(stage: Stage, data: DataSettings) -> Path:
    # Most stages depend on the prepared images, and not on the settings that decide how many and how large they are.
    # Results in the project's folder have its path from there, workspaces from anywhere.
    data = data if is_in_store(data.path) else data.model_copy(update={"path": str(main_root() / data.path)})
    return state_dir() / "durations" / f"{digest_of(f'{stage.name} {stage.settings} {data!r}'.encode())}.json"


def usual_duration(
    stage: Stage, settings: Settings, sizes: Mapping[str, NetworkSize], images: Images | None
) -> float | None:
    """About how many seconds the stage takes by the rule, None where the number of images is not known.

    `sizes` are those of the contestants' networks.
    """
    fixed = _FIXED_SECONDS.get(stage.kind, _FIXED_SECONDS_OF_OTHERS)
    if stage.kind in {"compare", "register"} or (stage.kind == "tune" and not settings.tune.trials):
        return fixed
    if stage.kind == "cost":
        batch = settings.evaluate.batch_size
        one_round = sum(batch * _seconds_per_pass(settings, size.operations, batch) for size in sizes.values())
        return fixed + one_round + min(max(_COST_SECONDS, one_round), _COST_ROUNDS * one_round)
    if images is None:
        return None
    train, val, test = images
    if stage.kind in {"prepare", "eda"}:
        return fixed + sum(images) * _SECONDS_PER_IMAGE_READ
    epoch = _PASSES_OF_STEP * train + val
    passes = {
        "train": settings.train.epochs * (1 + settings.train.refit) * epoch,
        "tune": settings.tune.trials
        * (settings.tune.epochs or settings.train.epochs)
        * settings.tune.data_fraction
        * epoch,
        "evaluate": _PASSES_OF_VIEWS[settings.evaluate.views] * test,
        "robustness": len(settings.seeds) * _CONDITIONS * min(settings.robustness.images, test),
        "explain": _PASSES_OF_EXPLANATION * min(_EXPLAINED, test),
    }[stage.kind]
    contestant = stage.contestant(sizes) or ""
    work = sizes[contestant].operations if contestant else 0
    if stage.kind in {"train", "tune"}:
        batch, bf16 = settings.model(contestant).recipe.batch_size, settings.train.precision in {"auto", "bf16-mixed"}
    else:
        batch, bf16 = settings.evaluate.batch_size, False
    return fixed + passes * _seconds_per_pass(settings, work, batch, bf16=bf16)


def _seconds_per_pass(settings: Settings, operations: int, batch: int, *, bf16: bool = False) -> float:
    devices = min(settings.train.devices, len(accelerators())) if settings.train.device != "cpu" else 0
    if devices:
        return (operations / _GPU_RATE + _GPU_SECONDS_PER_PASS) / devices
    rate = _CPU_RATE * (os.cpu_count() or 1) * (2 if bf16 and cpu_has_bf16() else 1)
    return operations / rate + _CPU_SECONDS_PER_BATCH / batch
