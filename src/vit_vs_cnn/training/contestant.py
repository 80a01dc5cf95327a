"""One contestant, from settings and prepared data to trained weights."""

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.data.dataset import DatasetInfo, Split
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.trained import TrainedModel, preprocess_for
from vit_vs_cnn.models.weights import is_pretrained, load_pretrained_weights
from vit_vs_cnn.models.whitening import fit_whitening
from vit_vs_cnn.training.checkpoint import Checkpoints
from vit_vs_cnn.training.device import make_fabric
from vit_vs_cnn.training.loop import Result
from vit_vs_cnn.training.parallel import Job, train_in_processes, train_job
from vit_vs_cnn.training.plan import Plan, make_plan
from vit_vs_cnn.training.results import Epoch, TrainingSummary

_LONG_ON_CPU_SECONDS = 3600


@dataclass(frozen=True)
class Prepared:
    """A contestant ready to train: its network with the starting weights, and where it will run."""

    network: nn.Module
    plan: Plan


def prepare_contestant(settings: Settings, name: str, info: DatasetInfo) -> Prepared:
    """Build the network with its starting weights, choose device and precision."""
    model, key_path = settings.model(name), f"models.{name}"
    torch.manual_seed(settings.seed)
    network = create_model(model, len(info.classes), info.image_size, key_path)
    if is_pretrained(model):
        load_pretrained_weights(network, model, len(info.classes), key_path)
    return Prepared(network, make_plan(network, model, settings.train, info))


def announce(settings: Settings, name: str, info: DatasetInfo, plan: Plan) -> None:
    """Print what will be trained on what, and how long it will take; warn where that is long."""
    model = settings.model(name)
    seconds = plan.seconds_per_image * info.splits["train"].images * settings.train.epochs / plan.devices
    print(
        f"train {name}: {model.timm}, {info.splits['train'].images:,} images, {settings.train.epochs} epochs, "
        f"{plan.precision}{', compiled,' if plan.compiled else ''} on {plan.device_name}: about {_duration(seconds)}",
        flush=True,
    )
    if plan.device.type == "cpu" and seconds > _LONG_ON_CPU_SECONDS:
        print(
            "warning: that is long for a CPU; `vit-vs-cnn run --preset cpu` compares small models from scratch "
            "in about an hour, and a GPU does this one in minutes.",
            file=sys.stderr,
            flush=True,
        )


def train_contestant(
    settings: Settings,
    name: str,
    info: DatasetInfo,
    splits: tuple[Split, Split],
    ready: Prepared,
    checkpoints: Checkpoints,
    on_epoch: Callable[[Epoch], None],
    *,
    quiet: bool = False,
) -> tuple[TrainedModel, Result, TrainingSummary]:
    """Train on the first split, choose the epoch on the second; the model comes back with the chosen weights.

    `quiet` leaves out progress bar and lines, where the training is a part of something that shows its own.
    """
    model, plan, network = settings.model(name), ready.plan, ready.network
    preprocess = preprocess_for(model, info)
    if not is_pretrained(model):
        fit_whitening(network, splits[0].images, preprocess)
    if plan.device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
    job = Job(
        name, model, settings.train, settings.seed, plan, network, preprocess, len(info.classes), *splits,
        checkpoints.file, quiet,
    )  # fmt: skip
    if plan.devices > 1:
        result = train_in_processes(job, on_epoch)
    else:
        result = train_job(make_fabric(plan.device, plan.precision), job, on_epoch)
    network.load_state_dict(result.weights)
    trained = TrainedModel(network.cpu().eval(), preprocess.cpu())
    best = result.history[result.best_epoch - 1]
    summary = TrainingSummary(
        model=name,
        timm=model.timm,
        parameters=sum(each.numel() for each in network.parameters()),
        trainable_parameters=sum(each.numel() for each in network.parameters() if each.requires_grad),
        epochs=len(result.history),
        best_epoch=result.best_epoch,
        val_accuracy=best.val_accuracy,
        val_loss=best.val_loss,
        seconds=result.history[-1].elapsed_seconds,
        seconds_per_epoch=statistics.median(epoch.epoch_seconds for epoch in result.history),
        images_per_second=statistics.median(epoch.images_per_second for epoch in result.history),
        device=plan.device_name if plan.devices == 1 else f"{plan.devices} × {plan.device_name}",
        precision=plan.precision,
        train_images=len(splits[0]),
        batch_size=model.recipe.batch_size,
    )
    return trained, result, summary


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
