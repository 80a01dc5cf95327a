"""Optimizer, learning rate and moving average of a training."""

import math
from typing import Any

from timm.optim import create_optimizer_v2, list_optimizers
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from vit_vs_cnn.config.recipe import Recipe
from vit_vs_cnn.core.errors import UserError, first_line
from vit_vs_cnn.models.build import classifier_layers


def check_optimizer(name: str, key_path: str) -> None:
    """Raise UserError for a name that timm does not have."""
    if name not in list_optimizers():
        raise UserError(f"{key_path}.optimizer.name: timm has no optimizer {name!r}; see timm.optim.list_optimizers().")


def create_optimizer(network: nn.Module, recipe: Recipe, key_path: str) -> Optimizer:
    """Timm's optimizer over the trainable parameters, without weight decay on biases and norms.

    Muon is for the matrices and convolutions between input and output (Jordan 2024, kellerjordan.github.io/posts/muon):
    its AdamW changes the classifier, whatever the number of classes, position embeddings and tokens, biases and norms.
    Raises UserError for a name that timm does not have, or for arguments that the optimizer does not take.
    """
    settings = recipe.optimizer
    check_optimizer(settings.name, key_path)
    arguments: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings.args.items()
    }
    try:
        optimizer: Optimizer = create_optimizer_v2(
            network,
            opt=settings.name,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            fallback_list=classifier_parameters(network),
            fallback_no_weight_decay=True,
            layer_decay=recipe.layer_decay,
            **arguments,
        )
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        key = "optimizer.args" if arguments else "optimizer"
        raise UserError(f"{key_path}.{key}: {settings.name} cannot be set up: {first_line(error)}.") from None
    # timm drops some arguments that an optimizer does not have.
    if unknown := sorted(arguments.keys() - optimizer.defaults.keys()):
        raise UserError(f"{key_path}.optimizer.args: {settings.name} has no argument {', '.join(unknown)}.")
    return optimizer


def classifier_parameters(network: nn.Module) -> list[str]:
    """The names of the classifier's parameters."""
    own = {id(parameter) for parameter in classifier_layers(network).parameters()}
    return [name for name, parameter in network.named_parameters() if id(parameter) in own]


def body_parameters(network: nn.Module) -> list[nn.Parameter]:
    """All parameters but the classifier's."""
    classifier = classifier_parameters(network)
    return [parameter for name, parameter in network.named_parameters() if name not in classifier]


def warmup_epochs(recipe: Recipe, epochs: int) -> int:
    """The epochs of the warm-up, at most half of all."""
    return min(recipe.schedule.warmup_epochs, epochs // 2)


def learning_rate(recipe: Recipe, epochs: int, steps: int, done: int) -> float:
    """The rate after `done` updates of a training of `epochs` epochs of `steps` updates; after the last it is `min_lr`.

    A straight line from a hundredth of the peak during the warm-up. Then half a cosine, as it would be without one
    (Loshchilov & Hutter 2017, arXiv 1608.03983), or a straight line.
    """
    peak, updates = recipe.optimizer.lr, epochs * steps
    lowest = min(recipe.schedule.min_lr, peak)
    warmup = warmup_epochs(recipe, epochs) * steps
    if done < warmup:
        return peak / 100 + done * ((peak - peak / 100) / warmup)
    if recipe.schedule.name == "linear":
        return lowest + (peak - lowest) * (updates - done) / (updates - warmup)
    return lowest + 0.5 * (peak - lowest) * (1 + math.cos(math.pi * done / updates))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate of the next update; where layers have rates of their own, it is that of the classifier."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def create_ema(network: nn.Module, recipe: Recipe) -> ModelEmaV3 | None:
    """The moving average of the weights, None if the recipe has none.

    Its decay grows with the steps, 1 − (1 + steps)^−2/3 up to `ema_decay`: a short training would otherwise still carry
    its random start.
    """
    return ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
