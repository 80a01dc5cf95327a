"""One contestant, from settings and prepared data to trained weights."""

import copy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import duration
from vit_vs_cnn.data.dataset import DatasetInfo, Split
from vit_vs_cnn.data.loader import ResidentImages
from vit_vs_cnn.models.airbench import fit_whitening
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.operations import operation_shares
from vit_vs_cnn.models.temperature import fit_temperature
from vit_vs_cnn.models.trained import TrainedModel, preprocess_for
from vit_vs_cnn.models.weights import is_pretrained, load_pretrained_weights, pretraining
from vit_vs_cnn.training.checkpoint import Checkpoint
from vit_vs_cnn.training.loop import Trainer
from vit_vs_cnn.training.optimization import warmup_epochs
from vit_vs_cnn.training.outcome import chance_loss, has_collapsed, is_still_rising
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
    """The model with the weights of its best epoch by validation, and with those of its last one.

    `history` has all epochs. After a refit both have the weights of its end; history and validation figures are those
    of the training that chose the epoch.
    """

    model: TrainedModel
    last: TrainedModel
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
    network = create_model(model, len(info.classes), info.image_size, key_path, info.decoding.in_chans)
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
    about = "" if seconds is None else f": about {duration(seconds)}"
    print(f"train {job.contestant} seed {job.settings.seed}: {job.model.timm}, {budget}, {runs_on}{about}", flush=True)
    if plan.device.type == "cpu" and seconds is not None and seconds > _LONG_ON_CPU_SECONDS:
        print(
            "warning: that is long for a CPU: fewer epochs (train.epochs), a smaller network or a GPU shorten it; "
            "`--preset cpu` has small networks that learn from scratch.",
            file=sys.stderr,
            flush=True,
        )


def train_contestant(
    job: TrainingJob,
    checkpoint: Checkpoint,
    on_epoch: Callable[[Epoch], None],
    on_refit_epoch: Callable[[Epoch], None] = lambda _: None,
) -> FinishedTraining:
    """Train to the end of the budget, from the checkpoint where there is one; `on_epoch` is called after each epoch.

    With `train.refit` the weights are those of a second training from the start, on train and val, that ends after the
    best epoch; `on_refit_epoch` is called after each of its epochs. Raises what `Trainer.run` raises.
    """
    starting = copy.deepcopy(job.network) if job.settings.train.refit else None
    state, history = _train(job, checkpoint, on_epoch)
    job.network.load_state_dict(state["best"])
    # Of the first training: after a second one val is no longer new to the network.
    temperature = fit_temperature(_validation_logits(job), job.val.labels) if job.settings.train.calibrate else 1.0
    summary = _summarize(job, history, temperature)
    if summary.collapsed and not job.quiet:
        _warn_of_collapse(job, history[-1])
    if starting is not None:
        everything = _joined(job.train, job.val)
        job = replace(job, network=starting, train=everything, refit_epochs=summary.best_epoch)
        state, refit_history = _train(job, checkpoint.part("refit"), on_refit_epoch)
        seconds = summary.seconds + refit_history[-1].elapsed_seconds
        summary = summary.model_copy(update={"refit": True, "train_images": len(everything), "seconds": seconds})
    last = TrainedModel(copy.deepcopy(job.network), job.preprocess)
    last.network.load_state_dict(state["ema"] or state["network"])
    job.network.load_state_dict(state["best"])
    model = TrainedModel(job.network, job.preprocess, temperature)
    return FinishedTraining(model.cpu().eval(), last.cpu().eval(), history, summary)


def _train(
    job: TrainingJob, checkpoint: Checkpoint, on_epoch: Callable[[Epoch], None]
) -> tuple[dict[str, Any], list[Epoch]]:
    if job.plan.processes > 1:
        train_in_processes(job, checkpoint, on_epoch)
    else:
        Trainer(make_fabric(job.plan), job).run(checkpoint, on_epoch)
    return checkpoint.load()


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


def _warn_of_collapse(job: TrainingJob, last: Epoch) -> None:
    print(
        f"warning: {job.key_path}: the training has collapsed: it predicts one class for {last.val_top_share:.0%} of "
        f"the validation images, at a loss of {last.val_loss:.3g} (chance: {chance_loss(job.val.labels):.3g}); try a "
        f"tenth of the learning rate: --set {job.key_path}.recipe.optimizer.lr={job.model.recipe.optimizer.lr / 10:g}",
        file=sys.stderr,
        flush=True,
    )


def _joined(train: Split, val: Split) -> Split:
    return Split(
        np.concatenate((train.images, val.images)), np.concatenate((train.labels, val.labels)), train.names + val.names
    )


def _summarize(job: TrainingJob, history: list[Epoch], temperature: float) -> TrainingSummary:
    plan, parameters, select_by = job.plan, list(job.network.parameters()), job.settings.select_by
    best, seen_before = best_epoch(history, select_by), pretraining(job.model)
    return TrainingSummary(
        model=job.contestant,
        seed=job.settings.seed,
        timm=job.model.timm,
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        epochs=len(history),
        best_epoch=best.epoch,
        val_accuracy=best.val_accuracy,
        val_loss=best.val_loss,
        val_balanced_accuracy=best.val_balanced_accuracy,
        val_macro_f1=best.val_macro_f1,
        select_by=select_by,
        collapsed=has_collapsed(history, warmup_epochs(job.model.recipe, job.settings.train.epochs), job.val.labels),
        still_rising=is_still_rising(history, select_by),
        seconds=history[-1].elapsed_seconds,
        seconds_per_epoch=statistics.median(row.epoch_seconds for row in history),
        images_per_second=statistics.median(row.images_per_second for row in history),
        device=plan.device_name if plan.processes == 1 else f"{plan.processes} × {plan.device_name}",
        precision=plan.precision,
        train_images=len(job.train),
        batch_size=job.model.recipe.batch_size,
        pretraining_data=seen_before.data,
        pretraining_images=seen_before.images,
        operation_shares=operation_shares(job.network, job.preprocess.input_size, job.info.decoding.in_chans),
        temperature=temperature,
    )


def _estimate_seconds(job: TrainingJob) -> float | None:
    """Seconds of all epochs and of a refit, from a few steps of a copy on noise; None where memory does not suffice."""
    plan, size, in_chans = replace(job.plan, devices=1, nodes=1), job.preprocess.input_size, job.info.decoding.in_chans
    images = min(job.model.recipe.batch_size, _MOST_TIMED_IMAGES, max(2, _TIMED_PIXELS // size**2))
    inputs = torch.randn(images, in_chans, size, size, device=plan.device).to(memory_format=torch.channels_last)
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
    epochs = job.settings.train.epochs * (1 + job.settings.train.refit)
    return min(seconds[1:]) / images * len(job.train) * epochs / job.plan.processes
