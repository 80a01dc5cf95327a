"""The settings of tuning: its budget, sampler and pruner, and the dimensions of the search space."""

import math
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Scalar = bool | int | float | str
When = dict[str, Scalar | list[Scalar | None] | None]


class StrictModel(BaseModel):
    """Frozen settings; unknown keys, other types and numbers that are not finite are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Dimension(StrictModel):
    when: When = {}

    def wanted(self, values: Mapping[str, Any]) -> bool:
        """Whether this dimension is searched, given the values of the dimensions before it."""
        return all(path in values and values[path] in _listed(allowed) for path, allowed in self.when.items())


class _Range(_Dimension):
    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0.0)] | None = None

    @model_validator(mode="after")
    def _goes_upwards(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, got {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic range has no step")
        if self.step is not None and not (self.step <= self.high - self.low and self._is_on_a_step(self.high)):
            raise ValueError(
                f"high must be low and a whole number of steps of {self.step:g}, got {self.low:g} and {self.high:g}"
            )
        return self

    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn from this dimension."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high and self._is_on_a_step(value)

    def ends(self) -> tuple[Scalar | None, ...]:
        """The values between which all others lie."""
        return (self.low, self.high)

    def beyond(self, value: float) -> float | None:
        """A value outside the range, on the side where `value` lies in the outermost twentieth of it; else None."""
        scale, unscale = (math.log, math.exp) if self.log else (float, float)
        low, high, position = scale(self.low), scale(self.high), scale(value)
        edge = (high - low) / 20
        if position <= low + edge:
            return unscale(low - (self.step or edge))
        return unscale(high + (self.step or edge)) if position >= high - edge else None

    def _is_on_a_step(self, value: float) -> bool:
        steps = (value - self.low) / (self.step or 1.0)
        return self.step is None or (math.isfinite(steps) and abs(steps - round(steps)) < 1e-6)


class FloatDimension(_Range):
    """A real number between `low` and `high`: evenly, evenly by its logarithm, or in steps."""

    type: Literal["float"]


class IntDimension(_Range):
    """A whole number between `low` and `high`, in steps of one or more."""

    type: Literal["int"]
    low: int
    high: int
    step: Annotated[int, Field(gt=0)] | None = None

    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn from this dimension."""
        return isinstance(value, int) and super().holds(value)

    def beyond(self, value: float) -> int | None:
        """As of other ranges, a whole number."""
        outside = super().beyond(value)
        if outside is None:
            return None
        return math.floor(outside) if outside < self.low else math.ceil(outside)


class CategoricalDimension(_Dimension):
    """One of a few values."""

    type: Literal["categorical"]
    choices: Annotated[list[Scalar | None], Field(min_length=2)]

    @model_validator(mode="after")
    def _choices_differ(self) -> Self:
        for position, choice in enumerate(self.choices):
            if choice in self.choices[:position]:
                raise ValueError(f"{choice!r} is among the choices twice")
        return self

    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn from this dimension."""
        return value in self.choices

    def ends(self) -> tuple[Scalar | None, ...]:
        """All choices: no value lies between two of them."""
        return tuple(self.choices)


def flatten_space(values: Any) -> Any:
    """Turn a space as params.yaml nests it into one mapping of dotted paths; None stays, to remove a dimension.

    Raises ValueError where a path is given twice, or where something is no dimension.
    """
    if not isinstance(values, Mapping):
        raise ValueError("expected a mapping of settings to dimensions")
    flat: dict[str, Any] = {}
    for path, dimension in _leaves(values, ""):
        if path in flat:
            raise ValueError(f"{path} is given twice")
        if dimension is not None and not isinstance(dimension, Mapping):
            raise ValueError(f"{path}: expected a dimension such as {{type: float, low: 0.1, high: 0.5}}")
        flat[path] = dimension
    return flat


Dimension = Annotated[FloatDimension | IntDimension | CategoricalDimension, Field(discriminator="type")]
Space = dict[str, Dimension]
SpaceOverlay = Annotated[dict[str, Dimension | None], BeforeValidator(flatten_space)]


class SamplerSettings(StrictModel):
    """A sampler of Optuna by its name, and its arguments; it is seeded with `seed`."""

    name: Literal["TPESampler", "RandomSampler", "GPSampler"] = "TPESampler"
    args: dict[str, Scalar] = {}


class PrunerSettings(StrictModel):
    """A pruner of Optuna by its name, and its arguments; Hyperband is given the epochs of a trial."""

    name: Literal["HyperbandPruner", "SuccessiveHalvingPruner", "MedianPruner", "PercentilePruner", "NopPruner"] = (
        "HyperbandPruner"
    )
    args: dict[str, Scalar] = {}


class TuneSettings(StrictModel):
    """The tuning budget, the same for every contestant, and what may be changed.

    `trials` is the total of each contestant, whatever is killed or joins in between. `epochs` (None: those of train)
    and `data_fraction` are what one trial may use; with `seconds` no trial begins once the trials of a contestant
    have taken so long. `space` is for all contestants, `models` changes it for one, path by path.
    """

    trials: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(ge=1)] | None = None
    data_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seconds: Annotated[float, Field(gt=0.0)] | None = None
    workers: Annotated[int, Field(ge=1, le=64)] | None = None
    sampler: SamplerSettings = SamplerSettings()
    pruner: PrunerSettings = PrunerSettings()
    space: SpaceOverlay = {}
    models: dict[str, SpaceOverlay] = {}

    def key_path(self, contestant: str, path: str) -> str:
        """The key in params.yaml of the contestant's dimension at `path`."""
        return f"tune.models.{contestant}.{path}" if path in self.models.get(contestant, {}) else f"tune.space.{path}"

    def space_of(self, contestant: str) -> Space:
        """The contestant's space, with every dimension after those that its `when` names.

        Raises ValueError where a condition names what is not searched, asks for what cannot be drawn, or is circular.
        """
        overlay = {**self.space, **self.models.get(contestant, {})}
        removed = tuple(f"{path}." for path, dimension in overlay.items() if dimension is None)
        space = {
            path: dimension
            for path, dimension in overlay.items()
            if dimension is not None and not path.startswith(removed)
        }
        for path, dimension in space.items():
            key_path = f"{self.key_path(contestant, path)}.when"
            for other, allowed in dimension.when.items():
                if other not in space:
                    raise ValueError(f"{key_path}: {other} is not searched")
                for value in _listed(allowed):
                    if not space[other].holds(value):
                        raise ValueError(f"{key_path}: {other} is never {value!r}")
        try:
            order = [*TopologicalSorter({path: dimension.when for path, dimension in space.items()}).static_order()]
        except CycleError as error:
            circle = ", ".join(sorted(set(error.args[1])))
            raise ValueError(f"tune.space: the conditions of {circle} wait for one another") from None
        return {path: space[path] for path in order}


def settings_path(path: str) -> str:
    """The path of a dimension in a contestant's settings: `stem` for `model.stem`, else `recipe.` and the path."""
    return path.removeprefix("model.") if path.startswith("model.") else f"recipe.{path}"


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and "type" not in value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _listed(allowed: Any) -> list[Any]:
    return allowed if isinstance(allowed, list) else [allowed]
