"""Optuna's samplers and pruners, and the values that a trial draws from a contestant's search space."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import Trial

from vit_vs_cnn.config.load import with_values
from vit_vs_cnn.config.nested import value_at
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.config.search_space import (
    CategoricalDimension,
    FloatDimension,
    PrunerSettings,
    SamplerSettings,
    Space,
    settings_path,
)
from vit_vs_cnn.core.errors import UserError


def make_sampler(settings: SamplerSettings, seed: int, trials: int = 0) -> BaseSampler:
    """The sampler that draws the next trial of a study with the seed `seed` and so many trials.

    Every trial has its own sampler: one that lasts as long as its process would draw the same values in each worker,
    and after each restart. With one worker the same seed draws the same trials; with several workers, or after a kill,
    it does not, because a draw depends on the trials before it. Raises UserError where an argument is not possible.
    """
    stream = int(np.random.SeedSequence([seed, trials]).generate_state(1)[0])
    kind = getattr(optuna.samplers, settings.name)
    sampler: BaseSampler = _create(kind, settings.args, f"tune.sampler: {settings.name}", seed=stream)
    return sampler


def make_pruner(settings: PrunerSettings, epochs: int) -> BasePruner:
    """The pruner for trials of so many epochs. Raises UserError where an argument is not possible."""
    defaults = {"max_resource": epochs} if settings.name == "HyperbandPruner" else {}
    kind = getattr(optuna.pruners, settings.name)
    pruner: BasePruner = _create(kind, {**defaults, **settings.args}, f"tune.pruner: {settings.name}")
    return pruner


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """Draw a value for each dimension whose condition holds, in the order of the space."""
    values: dict[str, Any] = {}
    for path, dimension in space.items():
        if not dimension.wanted(values):
            continue
        if isinstance(dimension, CategoricalDimension):
            values[path] = trial.suggest_categorical(path, dimension.choices)
        elif isinstance(dimension, FloatDimension):
            values[path] = trial.suggest_float(
                path, dimension.low, dimension.high, step=dimension.step, log=dimension.log
            )
        else:
            values[path] = trial.suggest_int(
                path, dimension.low, dimension.high, step=dimension.step or 1, log=dimension.log
            )
    return values


def recipe_values(settings: Settings, contestant: str) -> dict[str, Any]:
    """The values of the contestant's recipe as it is, by the paths of its search space."""
    model = settings.model(contestant).model_dump()
    values: dict[str, Any] = {}
    for path, dimension in settings.tune.space_of(contestant).items():
        if dimension.wanted(values):
            values[path] = value_at(model, settings_path(path))
    return values


def check_search(settings: Settings, contestant: str) -> None:
    """Create sampler and pruner, and build the network without memory at both ends of each dimension that changes it.

    Raises UserError where one of them is impossible.
    """
    from vit_vs_cnn.data.dataset import decoding_of
    from vit_vs_cnn.models.build import check_model
    from vit_vs_cnn.training.optimization import check_optimizer

    tune = settings.tune
    make_sampler(tune.sampler, settings.seed)
    make_pruner(tune.pruner, tune.epochs or settings.train.epochs)
    for path, dimension in settings.tune.space_of(contestant).items():
        for end in dimension.ends():
            key_path = f"tune.space.{path}: {end!r}: models.{contestant}"
            model = with_values(settings, contestant, {path: end}, key_path).model(contestant)
            if path.startswith("model."):
                check_model(model, 10, settings.data.image_size, key_path, decoding_of(settings.data).in_chans)
            if path == "optimizer.name":
                check_optimizer(model.recipe.optimizer.name, key_path)


def _create(kind: Callable[..., Any], arguments: Mapping[str, Any], key_path: str, **fixed: Any) -> Any:
    try:
        return kind(**arguments, **fixed)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key_path} does not take {dict(arguments)}: {str(error).rstrip('.')}.") from None
