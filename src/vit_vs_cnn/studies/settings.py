"""The settings of a study in studies/<name>.yaml: a preset, what is varied, over which values, with which seeds."""

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from vit_vs_cnn.config.load import merged_params, sentences, settings_of
from vit_vs_cnn.config.nested import value_at
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.config.search_space import StrictModel
from vit_vs_cnn.config.yaml_text import read_yaml
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.records import digest_of

STUDIES = Path("studies")
IMAGES, EPOCHS, SECONDS, SPLIT_SEED = "images", "epochs", "seconds", "data.split_seed"
# The axes that have a name of their own, and the setting that a value of them becomes.
_SETTING_OF = {IMAGES: "data.train_fraction", EPOCHS: "train.epochs"}
_FILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}\.yaml")

AxisValue = bool | int | float | str | None
Values = dict[str, AxisValue]


class StudySettings(StrictModel):
    """A study: the pipeline at every combination of the values of its `axes`.

    `overrides`, the key `set`, are settings that all points share. The axis `images` is the part of the training
    images; with `same: steps` a smaller part gets as many more epochs as it takes to make the same number of optimizer
    steps, up to `max_epochs`, with `same: epochs` the same number of epochs. The budget is the axis `epochs`, or
    `seconds` of training on this machine. Any other axis is the path of a setting.
    """

    preset: str | None = None
    overrides: Annotated[dict[str, Any], Field(alias="set")] = Field(default_factory=dict)
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)] | None = None
    axes: Annotated[dict[str, Annotated[list[AxisValue], Field(min_length=1)]], Field(min_length=1)]
    same: Literal["steps", "epochs"] = "steps"
    max_epochs: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _axes_are_sensible(self) -> Self:
        for axis, values in self.axes.items():
            if len({repr(value) for value in values}) < len(values):
                raise ValueError(f"axes.{axis}: each value may be there once")
            for named, setting in _SETTING_OF.items():
                if axis == setting:
                    raise ValueError(f"axes.{axis}: this axis is called {named}")
            if axis in ("seed", "seeds"):
                raise ValueError(f"axes.{axis}: seeds is a key beside axes")
            for value in values:
                _check_value(axis, value)
        if EPOCHS in self.axes and SECONDS in self.axes:
            raise ValueError("axes: epochs and seconds are two budgets, keep one of them")
        return self

    def points(self) -> list[Values]:
        """The value of each axis at each point, the last axis varying fastest."""
        return [dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())]

    def overrides_at(self, point: Values, more: Values | None = None) -> tuple[str, ...]:
        """The point as `key.path=value` overrides; `more` are settings laid over them."""
        changes = dict(self.overrides) | ({} if self.seeds is None else {"seeds": self.seeds})
        changes |= {_SETTING_OF.get(axis, axis): value for axis, value in point.items() if axis != SECONDS}
        return tuple(f"{path}={_as_yaml(value)}" for path, value in (changes | (more or {})).items())

    @property
    def digest(self) -> str:
        """A digest of all that it says but for its seeds: with more of them it is the same study."""
        return digest_of(self.model_dump_json(exclude={"seeds"}).encode())


def find_study(given: str, root: Path) -> Path:
    """The file of a study, given by its name or as a path. Raises UserError where there is none."""
    path = Path(given) if given.endswith(".yaml") else root / STUDIES / f"{given}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(found.stem for found in (root / STUDIES).glob("*.yaml"))) or "none"
        raise UserError(f"{given}: there is no such study; in {STUDIES}/ there are: {names}.")
    if not _FILE.fullmatch(path.name):
        raise UserError(f"{path}: a study's file is named in lower-case letters, digits, '-' and '_', at most 40.")
    return path


def read_study(path: Path, root: Path) -> StudySettings:
    """Read a study and check every point of it against the project's settings.

    Raises UserError with the path of what is unknown or wrong.
    """
    values = read_yaml(path)
    try:
        study = StudySettings.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: " + "; ".join(sentences(error)) + ".") from None
    base = _at(study, {}, f"{path}: ", root)
    known = base.model_dump()
    for axis in study.axes.keys() - {IMAGES, EPOCHS, SECONDS}:
        try:
            value_at(known, axis)
        except (KeyError, TypeError):
            near = get_close_matches(axis, [IMAGES, EPOCHS, SECONDS, *_paths(known)], 1)
            hint = f"; do you mean {near[0]}?" if near else ""
            raise UserError(f"{path}: axes.{axis}: there is no such setting{hint or '.'}") from None
    for axis, tried in study.axes.items():
        found = [_at(study, {axis: value}, f"{path}: axes.{axis}: {_as_yaml(value)}: ", root) for value in tried]
        if axis.startswith("recipe.") and len(tried) > 1:
            _refuse_covered(axis, found, path)
    return study


def settings_at(study: StudySettings, point: Values, root: Path, more: Values | None = None) -> Settings:
    """The settings of the pipeline at a point. Raises UserError where they do not fit together."""
    return settings_of(merged_params(root, study.preset, study.overrides_at(point, more)))


def _at(study: StudySettings, point: Values, prefix: str, root: Path) -> Settings:
    try:
        return settings_at(study, point, root)
    except UserError as error:
        raise UserError(f"{prefix}{error}") from None


def _refuse_covered(axis: str, settings: Sequence[Settings], path: Path) -> None:
    """Raise UserError where a contestant's own recipe hides what an axis over the shared one changes."""
    for contestant in settings[0].models:
        if len({repr(one.models[contestant]) for one in settings}) < len(settings):
            raise UserError(
                f"{path}: axes.{axis}: changes nothing for {contestant}, whose own recipe sets it: "
                f"write models.{contestant}.{axis}."
            )


def _check_value(axis: str, value: AxisValue) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if axis == IMAGES and not (is_number and 0 < float(value or 0) <= 1):
        raise ValueError(f"axes.images: {value!r} is no part of the training images: above 0 and at most 1")
    if axis == EPOCHS and not (isinstance(value, int) and is_number and value >= 1):
        raise ValueError(f"axes.epochs: {value!r} is no number of epochs")
    if axis == SECONDS and not (is_number and float(value or 0) > 0):
        raise ValueError(f"axes.seconds: {value!r} is no time")


def _paths(values: Any, prefix: str = "") -> list[str]:
    if not isinstance(values, dict):
        return [prefix]
    return [path for key, below in values.items() for path in _paths(below, f"{prefix}.{key}" if prefix else str(key))]


def _as_yaml(value: Any) -> str:
    """A value as YAML in one line, which JSON is."""
    return json.dumps(value)


def axis_text(axis: str, value: AxisValue) -> str:
    """A value of an axis for people."""
    if axis == IMAGES:
        return f"{100 * float(value or 0):g} % of the images"
    if axis == EPOCHS:
        return f"{value} epoch{'' if value == 1 else 's'}"
    return f"{value:g} s" if axis == SECONDS and isinstance(value, int | float) else f"{axis}={_as_yaml(value)}"


def point_text(values: Values, axes: Sequence[str] | None = None) -> str:
    """A point for people; `axes` are those to name, all if None."""
    return ", ".join(axis_text(axis, value) for axis, value in values.items() if axes is None or axis in axes)
