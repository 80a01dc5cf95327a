"""What tuning hands to training: tuned/<model>.yaml, a part of the contestant's settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_vs_cnn.config.load import parse_settings, read_yaml
from vit_vs_cnn.config.schema import Settings, merge
from vit_vs_cnn.config.search_space import at_path
from vit_vs_cnn.core.paths import tuned


def write_recipe(settings: Settings, name: str, path: Path, found: Mapping[str, Any] | None = None) -> None:
    """Write the contestant's recipe, with the values that a search found laid over it."""
    from ruamel.yaml import YAML

    overlay: dict[str, Any] = {"recipe": settings.model(name).recipe.model_dump()}
    for place, value in (found or {}).items():
        overlay = merge(overlay, at_path(place, value))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(overlay, file)


def with_tuned(settings: Settings, name: str) -> Settings:
    """The settings with what tuning found for `name` laid over them. Raises UserError if that does not fit them."""
    path = tuned(name)
    settings.model(name)
    if not path.is_file():
        return settings
    overlay = {"models": {name: read_yaml(path)}}
    return parse_settings(merge(settings.model_dump(), overlay), str(path))
