"""What tuning hands to training: tuned/<model>.yaml, a part of the contestant's settings."""

from pathlib import Path

from vit_vs_cnn.config import Settings, merge, parse_settings, read_yaml
from vit_vs_cnn.layout import tuned


def write_recipe(settings: Settings, name: str, path: Path) -> None:
    """Write the contestant's own recipe: what a study without trials finds."""
    from ruamel.yaml import YAML

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        YAML().dump({"recipe": settings.model(name).recipe.model_dump()}, file)


def with_tuned(settings: Settings, name: str) -> Settings:
    """The settings with what tuning found for `name` laid over them. Raises UserError if that does not fit them."""
    path = tuned(name)
    settings.model(name)
    if not path.is_file():
        return settings
    overlay = {"models": {name: read_yaml(path)}}
    return parse_settings(merge(settings.model_dump(), overlay), str(path))
