"""How long stages take on this machine: as long as with the same settings before, or about as long as a rule says."""

import os
from collections.abc import Mapping
from pathlib import Path

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.devices import accelerators, cpu_has_bf16
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PREPARED, main_root, state_dir
from vit_vs_cnn.core.records import Record, digest_of
from vit_vs_cnn.data.dataset import read_info
from vit_vs_cnn.orchestration.dag import Stage

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
_KNOWN_IMAGES = {"digits": (1_300, 150, 350), "cifar10": (45_000, 5_000, 10_000)}

# Of train, val and test.
Images = tuple[int, int, int]


class Duration(Record):
    """How many seconds a stage took."""

    stage: str
    seconds: float


def record_duration(stage: Stage, seconds: float) -> None:
    """Remember how long the stage took with its settings."""
    path = _file(stage)
    path.parent.mkdir(exist_ok=True)
    Duration(stage=stage.name, seconds=seconds).write(path)


def recorded_duration(stage: Stage) -> float | None:
    """How many seconds the stage took with these settings, None if it has not run with them."""
    return Duration.read(_file(stage), "delete it").seconds if _file(stage).is_file() else None


def _file(stage: Stage) -> Path:
    return state_dir() / "durations" / f"{digest_of(f'{stage.name} {stage.settings}'.encode())}.json"


def known_images(settings: Settings, workspace: Path) -> Images | None:
    """How many images train, val and test have, as far as that is known before they are read."""
    for folder in (workspace, main_root()):
        try:
            info = read_info(folder / PREPARED)
        except UserError:
            continue
        if info.name == settings.data.name:
            return info.splits["train"].images, info.splits["val"].images, info.splits["test"].images
    return _KNOWN_IMAGES.get(settings.data.source)


def usual_duration(
    stage: Stage, settings: Settings, operations: Mapping[str, int], images: Images | None
) -> float | None:
    """About how many seconds the stage takes by the rule, None where the number of images is not known.

    `operations` are the floating-point operations of each contestant's network for one image.
    """
    fixed = _FIXED_SECONDS.get(stage.kind, _FIXED_SECONDS_OF_OTHERS)
    suffix = stage.name.partition("@")[2]
    contestant = suffix if suffix in operations else suffix.rpartition("-")[0]
    if stage.kind not in {"prepare", "eda", "train", "evaluate", "robustness"} and (
        stage.kind != "tune" or not settings.tune.trials
    ):
        return fixed
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
    }[stage.kind]
    work = operations.get(contestant, 0)
    if stage.kind in {"train", "tune"}:
        batch, bf16 = settings.model(contestant).recipe.batch_size, settings.train.precision in {"auto", "bf16-mixed"}
    else:
        batch, bf16 = settings.evaluate.batch_size, False
    return fixed + passes * _seconds_per_pass(settings, work, batch, bf16=bf16)


def _seconds_per_pass(settings: Settings, operations: int, batch: int, *, bf16: bool) -> float:
    devices = min(settings.train.devices, len(accelerators())) if settings.train.device != "cpu" else 0
    if devices:
        return (operations / _GPU_RATE + _GPU_SECONDS_PER_PASS) / devices
    rate = _CPU_RATE * (os.cpu_count() or 1) * (2 if bf16 and cpu_has_bf16() else 1)
    return operations / rate + _CPU_SECONDS_PER_BATCH / batch
