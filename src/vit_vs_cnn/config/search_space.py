"""What tuning may change: the dimensions of a search space, as params.yaml writes them."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Scalar = bool | int | float | str
When = dict[str, Scalar | list[Scalar | None] | None]


class _Dimension(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    when: When = {}

    def wanted(self, values: Mapping[str, Any]) -> bool:
        """Whether this dimension is searched, given the values of the dimensions before it."""
        return all(path in values and values[path] in _listed(allowed) for path, allowed in self.when.items())


class FloatDimension(_Dimension):
    """A real number between `low` and `high`: evenly, evenly by its logarithm, or in steps."""

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0.0)] | None = None

    @model_validator(mode="after")
    def _goes_upwards(self) -> Self:
        _require_range(self.low, self.high, self.step, log=self.log)
        return self

    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn from this dimension."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or _is_whole((value - self.low) / self.step)

    def ends(self) -> tuple[Scalar | None, ...]:
        """The values between which all others lie."""
        return (self.low, self.high)


class IntDimension(_Dimension):
    """A whole number between `low` and `high`, in steps of one or more."""

    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    step: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _goes_upwards(self) -> Self:
        _require_range(self.low, self.high, self.step, log=self.log)
        return self

    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn from this dimension."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            return False
        return (value - self.low) % (self.step or 1) == 0

    def ends(self) -> tuple[Scalar | None, ...]:
        """The values between which all others lie."""
        return (self.low, self.high)


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


Dimension = Annotated[FloatDimension | IntDimension | CategoricalDimension, Field(discriminator="type")]
Space = dict[str, Dimension]


def flatten_space(values: Any) -> Any:
    """A space as params.yaml nests it, as one mapping of dotted paths; None stays, to take a dimension away.

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


def in_order(space: Space, key_path: str) -> Space:
    """The space with every dimension after those that its `when` names.

    Raises ValueError where a condition names what is not searched, asks for what cannot be drawn, or goes in a circle.
    """
    for path, dimension in space.items():
        for other, allowed in dimension.when.items():
            if other not in space:
                raise ValueError(f"{key_path}.{path}.when: {other} is not searched")
            for value in _listed(allowed):
                if not space[other].holds(value):
                    raise ValueError(f"{key_path}.{path}.when: {other} is never {value!r}")
    ordered: Space = {}
    while len(ordered) < len(space):
        ready = {
            path: each for path, each in space.items() if path not in ordered and each.when.keys() <= ordered.keys()
        }
        if not ready:
            circle = sorted(space.keys() - ordered.keys())
            raise ValueError(f"{key_path}: the conditions of {', '.join(circle)} wait for one another")
        ordered |= ready
    return ordered


def at_path(path: str, value: Any) -> dict[str, Any]:
    """A contestant's settings that say `value` at a dimension's path: `optimizer.lr` or `model.args.depth`."""
    keys = path.split(".")
    keys = keys[1:] if keys[0] == "model" else ["recipe", *keys]
    nested: Any = value
    for key in reversed(keys):
        nested = {key: nested}
    return nested  # type: ignore[no-any-return]


def setting_at(model: Mapping[str, Any], path: str) -> Any:
    """What a contestant's settings say at a dimension's path. Raises KeyError where there is no such setting."""
    keys = path.split(".")
    found: Any = model
    for key in keys[1:] if keys[0] == "model" else ["recipe", *keys]:
        if not isinstance(found, Mapping):
            raise KeyError(path)
        found = found[key]
    if isinstance(found, Mapping):
        raise KeyError(path)
    return found


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and "type" not in value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _require_range(low: float, high: float, step: float | None, *, log: bool) -> None:
    if not low < high:
        raise ValueError(f"low must be below high, got {low:g} and {high:g}")
    if log and low <= 0:
        raise ValueError(f"a logarithmic range starts above 0, got {low:g}")
    if log and step is not None:
        raise ValueError("a logarithmic range has no step")
    if step is not None and not (step <= high - low and _is_whole((high - low) / step)):
        raise ValueError(f"high must be low and a whole number of steps of {step:g}, got {low:g} and {high:g}")


def _is_whole(number: float) -> bool:
    return math.isfinite(number) and abs(number - round(number)) < 1e-6


def _listed(allowed: Any) -> list[Any]:
    return allowed if isinstance(allowed, list) else [allowed]
