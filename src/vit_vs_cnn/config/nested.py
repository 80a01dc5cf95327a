"""Nested settings as plain values: laid over one another, and reached by dotted paths."""

from collections.abc import Mapping
from typing import Any


def merge(base: dict[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `base` with the keys of `overlay` laid over it, nested mappings key by key.

    A copy of what ruamel.yaml has read keeps its comments.
    """
    merged = base.copy()
    for key, value in overlay.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nest values that are given by dotted paths: `{"train.epochs": 3}` becomes `{"train": {"epochs": 3}}`."""
    nested: dict[str, Any] = {}
    for path, value in values.items():
        branch = value
        for key in reversed(path.split(".")):
            branch = {key: branch}
        nested = merge(nested, branch)
    return nested


def value_at(values: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path. Raises KeyError where there is none, or a mapping."""
    found: Any = values
    for key in path.split("."):
        if not isinstance(found, Mapping):
            raise KeyError(path)
        found = found[key]
    if isinstance(found, Mapping):
        raise KeyError(path)
    return found
