"""The recipe that tuning found: tuned/<contestant>.yaml, a part of the contestant's settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_vs_cnn.config.load import parse_settings, read_yaml
from vit_vs_cnn.config.schema import Settings, merge
from vit_vs_cnn.config.search_space import at_path
from vit_vs_cnn.core.paths import tuned


def write_recipe(settings: Settings, contestant: str, path: Path, found: Mapping[str, Any] | None = None) -> None:
    """Write the contestant's recipe, with the values that tuning found, by path, laid over it."""
    from ruamel.yaml import YAML

    overlay: dict[str, Any] = {"recipe": settings.model(contestant).recipe.model_dump()}
    for key_path, value in (found or {}).items():
        overlay = merge(overlay, at_path(key_path, value))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(overlay, file)


def with_tuned(settings: Settings, contestant: str) -> Settings:
    """Lay what tuning found for a contestant over the settings. Raises UserError where it does not fit them."""
    path = tuned(contestant)
    settings.model(contestant)
    if not path.is_file():
        return settings
    overlay = {"models": {contestant: read_yaml(path)}}
    return parse_settings(merge(settings.model_dump(), overlay), str(path))
