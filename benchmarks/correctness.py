"""Whether a training on this device is the training that the CPU would do, and whether it can be killed.

    python benchmarks/correctness.py --device cuda

Four checks on a small network and scikit-learn's digits: the losses of three steps, in each precision, beside those of
the CPU in fp32; a training that is killed by SIGKILL and resumed, beside one that is not; the exported program, loaded
on the device, beside the network; a training that two processes share, beside one of one process. Exit code 1 where
one of them differs by more than its precision explains.
"""

import copy
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click
import torch

from record import json_option, publish
from vit_vs_cnn.config.load import merged_params, parse_settings, settings_of
from vit_vs_cnn.config.nested import merge
from vit_vs_cnn.core.console import table
from vit_vs_cnn.core.paths import project_root
from vit_vs_cnn.data.dataset import Split, read_info, read_split
from vit_vs_cnn.data.prepare import prepare
from vit_vs_cnn.training.checkpoint import open_checkpoint
from vit_vs_cnn.training.contestant import prepare_contestant, train_contestant
from vit_vs_cnn.training.results import Epoch
from vit_vs_cnn.training.setup import TrainingJob

Device = Literal["cpu", "cuda"]

STEPS = 3
# Largest relative difference of a loss after three steps. bf16 has 8 bits of mantissa, fp16 has 11.
TOLERANCES = {"32-true": 1e-4, "bf16-mixed": 2e-2, "16-mixed": 5e-3}
PROBABILITY_TOLERANCE = 1e-3
# The gradients are summed in another order.
PROCESSES_TOLERANCE = 1e-3
# Without augmentation, whose draws come from the device's own generator.
PLAIN = {"flip": 0.0, "translate": 0.0}


@click.command()
@click.option("--device", type=click.Choice(["cpu", "cuda"]), required=True, help="What is compared with the CPU.")
@json_option
def main(device: Device, file: Path | None) -> None:
    """Run all checks, print what they found, and fail where one does not hold."""
    target = file.resolve() if file else None
    os.chdir(project_root())
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared"
        prepare(settings_of(merged_params(Path(), "demo", ())).data, prepared)
        rows = [
            *_check_steps(device, prepared),
            _check_resume(device, prepared),
            _check_export(device, prepared),
            _check_processes(device, prepared),
        ]
    click.echo(table([("check", "", "difference", "at most"), *(_cells(*row) for row in rows)], text_columns=2))
    found = {name: {"difference": difference, "tolerance": tolerance} for name, difference, tolerance in rows}
    publish("correctness", found, target, to_mlflow=False)
    if any(difference > tolerance for _, difference, tolerance in rows):
        sys.exit(1)


def _cells(name: str, difference: float, tolerance: float) -> tuple[str, str, str, str]:
    return name, "same" if difference <= tolerance else "DIFFERS", f"{difference:.3g}", f"{tolerance:g}"


def _job(prepared: Path, device: Device, contestant: str = "vit", **train: Any) -> TrainingJob:
    recipe = {"augment": PLAIN}
    overlay = {
        "recipe": recipe,
        # No batch norm in the ViT: each of two processes would have the statistics of its share of the images.
        "models": {"vit": {"stem": "timm", "recipe": recipe}, "resnet": {"recipe": recipe}},
        "train": {"device": device, "precision": "32-true", "epochs": 3, **train},
    }
    params = settings_of(merged_params(Path(), "demo", ())).model_dump()
    settings = parse_settings(merge(params, overlay))
    info, splits = read_info(prepared), (read_split(prepared, "train"), read_split(prepared, "val"))
    return prepare_contestant(settings, contestant, info, splits, quiet=True)


def _train(
    job: TrainingJob, on_epoch: Callable[[Epoch], None] = lambda _: None, name: str | None = None
) -> list[Epoch]:
    own = replace(job, network=copy.deepcopy(job.network))
    with open_checkpoint(name or f"benchmark-{uuid.uuid4().hex}") as checkpoint:
        return train_contestant(own, checkpoint, on_epoch).history


def _difference(first: list[Epoch], second: list[Epoch]) -> float:
    """The largest relative difference of the losses of training and validation."""
    losses = [
        (getattr(one, loss), getattr(other, loss))
        for one, other in zip(first, second, strict=True)
        for loss in ("train_loss", "val_loss")
    ]
    return float(max(abs(one - other) / abs(one) for one, other in losses))


def _check_steps(device: Device, prepared: Path) -> list[tuple[str, float, float]]:
    rows = []
    for contestant in ("vit", "resnet"):
        reference = _few_steps(_job(prepared, "cpu", contestant, epochs=1))
        expected = _train(reference)
        for precision, tolerance in TOLERANCES.items():
            if device == "cpu" and precision == "16-mixed":
                continue
            job = _few_steps(_job(prepared, device, contestant, epochs=1, precision=precision))
            rows.append((f"{contestant}, {STEPS} steps in {precision}", _difference(expected, _train(job)), tolerance))
    return rows


def _few_steps(job: TrainingJob) -> TrainingJob:
    images = STEPS * job.model.recipe.batch_size
    return replace(job, train=Split(job.train.images[:images], job.train.labels[:images], job.train.names[:images]))


def _check_resume(device: Device, prepared: Path) -> tuple[str, float, float]:
    expected, name = _train(_job(prepared, device)), f"benchmark-{uuid.uuid4().hex}"
    process = torch.multiprocessing.get_context("spawn").Process(target=_train_and_die, args=(device, prepared, name))
    process.start()
    process.join()
    if process.exitcode != -signal.SIGKILL:
        sys.exit(f"error: the training that was to be killed ended with exit code {process.exitcode}.")
    resumed = _train(_job(prepared, device), name=name)
    return "killed after an epoch, resumed", _difference(expected, resumed), TOLERANCES["32-true"]


def _train_and_die(device: Device, prepared: Path, name: str) -> None:
    _train(_job(prepared, device), lambda _: os.kill(os.getpid(), signal.SIGKILL), name)


def _check_export(device: Device, prepared: Path) -> tuple[str, float, float]:
    job = _job(prepared, device, epochs=1)
    with open_checkpoint(f"benchmark-{uuid.uuid4().hex}") as checkpoint:
        model = train_contestant(job, checkpoint, lambda _: None).model
    images = torch.from_numpy(job.val.images[:32].copy())
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "model.pt2"
        batch = torch.export.Dim("batch", min=2)
        torch.export.save(
            torch.export.export(model.to(device), (images.to(device),), dynamic_shapes=({0: batch},)), path
        )
        program = torch.export.load(path).module()
        probabilities = program(images[:7].to(device)).cpu()
        expected = model.cpu()(images[:7])
    return "exported, loaded", float((probabilities - expected).abs().max()), PROBABILITY_TOLERANCE


def _check_processes(device: Device, prepared: Path) -> tuple[str, float, float]:
    where: Device = "cuda" if device == "cuda" and torch.cuda.device_count() > 1 else "cpu"
    alone, shared = (_train(_few_steps(_job(prepared, where, epochs=1, devices=devices))) for devices in (1, 2))
    return f"two processes on {where}", _difference(alone, shared), PROCESSES_TOLERANCE


if __name__ == "__main__":
    main()
