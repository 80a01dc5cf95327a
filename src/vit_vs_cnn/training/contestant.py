"""One contestant, from settings and prepared data to trained weights."""

import copy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.data.dataset import DatasetInfo, Split
from vit_vs_cnn.data.loader import ResidentImages
from vit_vs_cnn.models.airbench import fit_whitening
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.operations import operation_shares
from vit_vs_cnn.models.temperature import fit_temperature
from vit_vs_cnn.models.trained import TrainedModel, preprocess_for
from vit_vs_cnn.models.weights import is_pretrained, load_pretrained_weights, pretraining
from vit_vs_cnn.training.checkpoint import Checkpoints
from vit_vs_cnn.training.loop import Trainer
from vit_vs_cnn.training.parallel import train_in_processes
from vit_vs_cnn.training.results import Epoch, TrainingSummary, best_epoch
from vit_vs_cnn.training.setup import TrainingJob, fastest_attention, is_out_of_memory, make_fabric, make_plan

_LONG_ON_CPU_SECONDS = 3600
_TIMED_STEPS = 3
# As many pixels as 16 images of 224 px have, but no more images than these.
_TIMED_PIXELS = 16 * 224**2
_MOST_TIMED_IMAGES = 128
# Small enough for the memory that a step of training has just used.
_VALIDATION_BATCH = 64


@dataclass(frozen=True)
class FinishedTraining:
    """The model with the weights of its best epoch by validation, all epochs, and the summary."""

    model: TrainedModel
    history: list[Epoch]
    summary: TrainingSummary


def prepare_contestant(
    settings: Settings, contestant: str, info: DatasetInfo, splits: tuple[Split, Split], *, quiet: bool = False
) -> TrainingJob:
    """Build the network with its starting weights, and choose what it is trained on.

    `splits` are train and val. Raises UserError where the network cannot be built, its pretrained weights cannot be
    loaded, or the device is missing.
    """
    model, key_path = settings.model(contestant), f"models.{contestant}"
    torch.manual_seed(settings.seed)
    network = create_model(model, len(info.classes), info.image_size, key_path)
    preprocess = preprocess_for(model, info)
    if is_pretrained(model):
        load_pretrained_weights(network, model, key_path)
    else:
        fit_whitening(network, splits[0].images, preprocess)
    return TrainingJob(settings, contestant, info, *splits, network, preprocess, make_plan(settings.train), quiet)


def announce(job: TrainingJob) -> None:
    """Print what will be trained on what, and about how long it will take; warn where that is long."""
    plan, epochs, seconds = job.plan, job.settings.train.epochs, _estimate_seconds(job)
    budget = f"{len(job.train):,} images, {epochs} epoch{'' if epochs == 1 else 's'}"
    runs_on = f"{plan.precision}{', compiled,' if plan.compiled else ''} on {plan.device_name}"
    duration = "" if seconds is None else f": about {_duration(seconds)}"
    print(f"train {job.contestant}: {job.model.timm}, {budget}, {runs_on}{duration}", flush=True)
    if plan.device.type == "cpu" and seconds is not None and seconds > _LONG_ON_CPU_SECONDS:
        print(
            "warning: that is long for a CPU; `vit-vs-cnn run --preset cpu` compares small models from scratch "
            "in about an hour, and a GPU does this one in minutes.",
            file=sys.stderr,
            flush=True,
        )


def train_contestant(job: TrainingJob, checkpoints: Checkpoints, on_epoch: Callable[[Epoch], None]) -> FinishedTraining:
    """Train to the end of the budget, from the checkpoint where there is one; `on_epoch` is called after each epoch.

    Raises what `Trainer.run` raises.
    """
    if job.plan.device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
    if job.plan.devices > 1:
        train_in_processes(job, checkpoints.file, on_epoch)
    else:
        Trainer(make_fabric(job.plan), job).run(checkpoints.file, on_epoch)
    state, history = checkpoints.file.load()
    job.network.load_state_dict(state["best"])
    temperature = fit_temperature(_validation_logits(job), job.val.labels) if job.settings.train.calibrate else 1.0
    model = TrainedModel(job.network, job.preprocess, temperature)
    return FinishedTraining(model.cpu().eval(), history, _summarize(job, history, temperature))


@torch.inference_mode()
def _validation_logits(job: TrainingJob) -> NDArray[np.float32]:
    """Logits float32 (N, K) of the images of val, in fp32, as the exported model computes them."""
    device = job.plan.device
    network, preprocess = job.network.to(device).eval(), job.preprocess.to(device)
    batches = ResidentImages(job.val, device).in_order(_VALIDATION_BATCH)
    logits: NDArray[np.float32] = (
        torch.cat([network(preprocess(images)).float() for images, _ in batches]).cpu().numpy()
    )
    return logits


def _summarize(job: TrainingJob, history: list[Epoch], temperature: float) -> TrainingSummary:
    plan, best, parameters = job.plan, best_epoch(history), list(job.network.parameters())
    seen_before = pretraining(job.model)
    return TrainingSummary(
        model=job.contestant,
        timm=job.model.timm,
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        epochs=len(history),
        best_epoch=best.epoch,
        val_accuracy=best.val_accuracy,
        val_loss=best.val_loss,
        seconds=history[-1].elapsed_seconds,
        seconds_per_epoch=statistics.median(row.epoch_seconds for row in history),
        images_per_second=statistics.median(row.images_per_second for row in history),
        device=plan.device_name if plan.devices == 1 else f"{plan.devices} × {plan.device_name}",
        precision=plan.precision,
        train_images=len(job.train),
        batch_size=job.model.recipe.batch_size,
        pretraining_data=seen_before.data,
        pretraining_images=seen_before.images,
        operation_shares=operation_shares(job.network, job.preprocess.input_size),
        temperature=temperature,
    )


def _estimate_seconds(job: TrainingJob) -> float | None:
    """Seconds of all epochs, from a few steps of a copy of the network on noise; None where memory does not suffice."""
    plan, size = replace(job.plan, devices=1), job.preprocess.input_size
    images = min(job.model.recipe.batch_size, _MOST_TIMED_IMAGES, max(2, _TIMED_PIXELS // size**2))
    inputs = torch.randn(images, 3, size, size, device=plan.device).to(memory_format=torch.channels_last)
    labels = torch.zeros(images, dtype=torch.long, device=plan.device)
    fabric, network = make_fabric(plan), copy.deepcopy(job.network).to(memory_format=torch.channels_last)
    stepper = fabric.setup(network)
    seconds = []
    try:
        with fastest_attention(network, plan):
            # The first step allocates, or compiles kernels.
            for _ in range(1 + _TIMED_STEPS):
                start = time.perf_counter()
                fabric.backward(functional.cross_entropy(stepper(inputs), labels))
                if plan.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - start)
    except RuntimeError as error:
        if is_out_of_memory(error):
            return None
        raise
    return min(seconds[1:]) / images * len(job.train) * job.settings.train.epochs / job.plan.devices


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
