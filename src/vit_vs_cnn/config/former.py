"""Settings of earlier versions."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BeforeValidator


def former(key: str, is_default: Callable[[Any], bool], advice: str | None = None) -> BeforeValidator:
    """Read a key that settings of earlier versions have: params.yaml of old commits, metadata of registered models.

    It is dropped where `is_default` holds for its value, which then says what happens now anyway. Any other value is an
    error that gives `advice`, or without advice is checked as today's setting of that key.
    """

    def read(section: Any) -> Any:
        if not isinstance(section, Mapping) or key not in section:
            return section
        if is_default(section[key]):
            return {name: value for name, value in section.items() if name != key}
        if advice is not None:
            raise ValueError(f"{key} is no longer a setting: {advice}")
        return section

    return BeforeValidator(read)
