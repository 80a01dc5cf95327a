"""Settings from params.yaml, presets, `--set`, and from the recipe that tuning found, tuned/<contestant>.yaml."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.config.nested import merge, nest
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.config.search_space import StrictModel, settings_path
from vit_vs_cnn.config.yaml_text import parse_yaml, parse_yaml_with_comments, read_text, read_yaml, round_trip
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PARAMS, PRESETS, project_root, tuned

Model = TypeVar("Model", bound=StrictModel)

# Pydantic names them in the location of an error; params.yaml has no such keys.
_DIMENSION_TYPES = ("float", "int", "categorical")
_LONGEST_PATH = 20
_LONGEST_VALUE = 100


def parse_settings(values: Any, key_path: str = "params.yaml") -> Settings:
    """Check plain values, as YAML gives them, and return the settings.

    `key_path` is the file or key that an error begins with. Raises UserError with the path of each key that is unknown,
    missing, of a wrong type or out of range.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{key_path}: expected a mapping of settings, found {type(values).__name__}.")
    return _validated(Settings, values, key_path)


def parse_data_settings(values: Mapping[str, Any], overrides: Sequence[str]) -> DataSettings:
    """Check the settings below `data` with `key.path=value` overrides laid over them.

    Raises UserError for bad values, and for an override of anything else.
    """
    settings: dict[str, Any] = {"data": dict(values)}
    for override in overrides:
        settings = merge(settings, _parse_override(override))
    if other := sorted(settings.keys() - {"data"}):
        raise UserError(f"--set {other[0]}: only settings below data say how images are read.")
    return _validated(DataSettings, settings["data"], "data")


def _validated(model: type[Model], values: Any, key_path: str) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{key_path}: " + "; ".join(sentences(error)) + ".") from None


def read_settings(path: Path) -> Settings:
    """Read the settings in a params.yaml. Raises UserError where it cannot be read or is not valid."""
    return parse_settings(read_yaml(path), path.name)


def project_settings() -> Settings:
    """Read params.yaml of the project around the working directory, which becomes the project folder."""
    os.chdir(project_root())
    return read_settings(PARAMS)


def changed(settings: Settings, changes: Mapping[str, Any], key_path: str = "params.yaml") -> Settings:
    """The settings with nested values laid over them. Raises UserError, which begins with `key_path`, for bad ones."""
    return parse_settings(merge(settings.model_dump(), changes), key_path)


def with_values(settings: Settings, contestant: str, values: Mapping[str, Any], key_path: str) -> Settings:
    """The settings with values of a contestant's search space, by path. Raises UserError where they do not fit."""
    return changed(settings, {"models": {contestant: _nested_values(values)}}, key_path)


def with_tuned(settings: Settings, contestant: str) -> Settings:
    """Lay what tuning found for a contestant over the settings. Raises UserError where it does not fit them."""
    path = tuned(contestant)
    settings.model(contestant)
    if not path.is_file():
        return settings
    return changed(settings, {"models": {contestant: read_yaml(path)}}, str(path))


def write_recipe(settings: Settings, contestant: str, path: Path, found: Mapping[str, Any] | None = None) -> None:
    """Write the contestant's recipe, with the values that tuning found, by path, laid over it."""
    from ruamel.yaml import YAML

    recipe = {"recipe": settings.model(contestant).recipe.model_dump()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(merge(recipe, _nested_values(found or {})), file)


def _nested_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return nest({settings_path(path): value for path, value in values.items()})


def sentences(error: ValidationError) -> list[str]:
    """What is wrong with settings, a sentence for each problem, beginning with its path."""
    found = []
    for problem in error.errors(include_url=False):
        location = ".".join(str(part) for part in problem["loc"] if part not in _DIMENSION_TYPES)
        if problem["type"] == "extra_forbidden":
            text = "is not a known setting"
        elif problem["type"] == "missing":
            text = "is missing"
        elif problem["type"] == "model_type":
            text = f"expected a mapping of settings, got {_shown(problem['input'])}"
        elif problem["type"] == "value_error":
            text = str(problem["ctx"]["error"])
        else:
            text = f"{problem['msg'][0].lower()}{problem['msg'][1:]}, got {_shown(problem['input'])}"
        found.append(f"{location}: {text}" if location else text)
    return list(dict.fromkeys(found))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def merged_params(root: Path, preset: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Read the project's params.yaml, and lay the keys of a preset and then `key.path=value` overrides over it.

    A contestant that is null in the end takes no part. Raises UserError for a preset that does not exist or an override
    of another form.
    """
    params: dict[str, Any] = parse_yaml_with_comments(read_text(root / PARAMS), str(PARAMS))
    if not isinstance(params, dict):
        raise UserError(f"{PARAMS}: expected a mapping of settings.")
    if preset is not None:
        params = merge(params, _read_preset(root, preset))
    for override in overrides:
        params = merge(params, _parse_override(override))
    if isinstance(params.get("models"), dict):
        for contestant in [name for name, model in params["models"].items() if model is None]:
            del params["models"][contestant]
    return params


def settings_of(params: dict[str, Any]) -> Settings:
    """Check merged parameters and return the settings. Raises UserError where they are not valid."""
    return parse_settings(parse_yaml(dump(params), str(PARAMS)))


def dump(params: dict[str, Any]) -> str:
    """Return the parameters as YAML text, with their comments."""
    text = io.StringIO()
    round_trip().dump(params, text)
    return text.getvalue()


def preset_names(root: Path) -> list[str]:
    """The names of the project's presets."""
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
    if not equals or not all(keys) or len(keys) > _LONGEST_PATH:
        raise UserError(f"--set {override[:100]}: expected key.path=value, for example --set train.epochs=3.")
    return nest({path.strip(): parse_yaml(text, f"--set {path.strip()[:100]}")})
