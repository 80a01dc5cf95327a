"""Optimizer, schedule and moving average, from timm's factories."""

from typing import Any

from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from vit_vs_cnn.config.schema import Recipe
from vit_vs_cnn.core.errors import UserError


def check_optimizer(name: str, key_path: str) -> None:
    """Raise UserError for a name that timm does not have."""
    if name not in list_optimizers():
        raise UserError(f"{key_path}.optimizer.name: timm has no optimizer {name!r}; see timm.optim.list_optimizers().")


def create_optimizer(network: nn.Module, recipe: Recipe, key_path: str) -> Optimizer:
    """Timm's optimizer over the trainable parameters, without weight decay on biases and norms.

    Raises UserError for a name that timm does not have.
    """
    settings = recipe.optimizer
    check_optimizer(settings.name, key_path)
    try:
        optimizer: Optimizer = create_optimizer_v2(
            network, opt=settings.name, lr=settings.lr, weight_decay=settings.weight_decay, momentum=settings.momentum
        )
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        raise UserError(f"{key_path}.optimizer: {settings.name} cannot be set up: {error}.") from None
    return optimizer


def create_scheduler(optimizer: Optimizer, recipe: Recipe, epochs: int, steps_per_epoch: int) -> Any:
    """Timm's scheduler, updated at every step: call `step_update(updates so far)`."""
    settings = recipe.schedule
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=settings.name,
        num_epochs=epochs,
        warmup_epochs=min(settings.warmup_epochs, epochs // 2),
        warmup_lr=recipe.optimizer.lr / 100,
        warmup_prefix=False,
        min_lr=min(settings.min_lr, recipe.optimizer.lr),
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )
    scheduler.step_update(0)
    return scheduler


def create_ema(network: nn.Module, recipe: Recipe) -> ModelEmaV3 | None:
    """The moving average of the weights, None if the recipe has none.

    Its decay grows with the steps (Polyak averaging at first): a short training would otherwise still carry its
    random start.
    """
    return ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
