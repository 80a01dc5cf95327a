"""params.yaml with a preset and overrides laid over it, comments kept."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from vit_vs_cnn.config import Settings, parse_settings, read_yaml
from vit_vs_cnn.errors import UserError
from vit_vs_cnn.layout import PARAMS, PRESETS


def merged_params(root: Path, preset: str | None, overrides: Sequence[str]) -> CommentedMap:
    """The project's params.yaml with the preset's keys and then `key.path=value` overrides laid over it.

    Raises UserError for a preset that does not exist or an override that is not of that form.
    """
    params: CommentedMap = _round_trip().load((root / PARAMS).read_text(encoding="utf-8"))
    if preset is not None:
        _lay_over(params, _read_preset(root, preset))
    for override in overrides:
        _lay_over(params, _parse_override(override))
    return params


def settings_of(params: CommentedMap) -> Settings:
    """The settings in merged parameters. Raises UserError where they are not valid."""
    return parse_settings(YAML(typ="safe").load(dump(params)))


def dump(params: CommentedMap) -> str:
    """The parameters as YAML text, with their comments."""
    text = io.StringIO()
    _round_trip().dump(params, text)
    return text.getvalue()


def preset_names(root: Path) -> list[str]:
    """The presets of the project."""
    return sorted(path.stem for path in (root / PRESETS).glob("*.yaml"))


def _read_preset(root: Path, name: str) -> Any:
    names = preset_names(root)
    if name not in names:
        raise UserError(f"--preset {name}: there is no presets/{name}.yaml; there are {', '.join(names)}.")
    values = read_yaml(root / PRESETS / f"{name}.yaml")
    if not isinstance(values, dict):
        raise UserError(f"presets/{name}.yaml: expected a mapping of settings.")
    return values


def _parse_override(override: str) -> dict[str, Any]:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {override}: expected key.path=value, for example --set train.epochs=3.")
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError:
        raise UserError(f"--set {override}: the value is not valid YAML; quote it if it is a text.") from None
    for key in reversed(keys):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def _lay_over(base: Any, overlay: dict[str, Any]) -> None:
    """Like config.merge, in place: the comments of `base` belong to its object."""
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = value


def _round_trip() -> YAML:
    yaml = YAML()
    yaml.width = 120
    yaml.preserve_quotes = True
    return yaml
