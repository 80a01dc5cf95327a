"""A contestant's search space as Optuna draws from it."""

from collections.abc import Mapping
from typing import Any

from optuna.trial import Trial

from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.config.schema import ModelSettings, Settings, merge
from vit_vs_cnn.config.search_space import CategoricalDimension, Dimension, FloatDimension, Space, at_path, setting_at

Values = dict[str, Any]


def draw(trial: Trial, space: Space) -> Values:
    """A value for each dimension whose condition holds, in the order of the space."""
    values: Values = {}
    for path, dimension in space.items():
        if dimension.wanted(values):
            values[path] = _draw_one(trial, path, dimension)
    return values


def own_values(model: ModelSettings, space: Space) -> Values:
    """The values of the contestant's recipe as it is."""
    settings = model.model_dump()
    values: Values = {}
    for path, dimension in space.items():
        if dimension.wanted(values):
            values[path] = setting_at(settings, path)
    return values


def overlay_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Drawn values as a part of the contestant's settings."""
    overlay: dict[str, Any] = {}
    for path, value in values.items():
        overlay = merge(overlay, at_path(path, value))
    return overlay


def with_values(settings: Settings, name: str, values: Mapping[str, Any], key_path: str) -> Settings:
    """The settings with drawn values laid over contestant `name`. Raises UserError where they do not go together."""
    return parse_settings(merge(settings.model_dump(), {"models": {name: overlay_of(values)}}), key_path)


def _draw_one(trial: Trial, path: str, dimension: Dimension) -> Any:
    if isinstance(dimension, CategoricalDimension):
        return trial.suggest_categorical(path, dimension.choices)
    if isinstance(dimension, FloatDimension):
        return trial.suggest_float(path, dimension.low, dimension.high, step=dimension.step, log=dimension.log)
    return trial.suggest_int(path, dimension.low, dimension.high, step=dimension.step or 1, log=dimension.log)
