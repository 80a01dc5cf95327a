"""The order in which names are shown to people."""

import re
from collections.abc import Sequence


def natural_order(names: Sequence[str]) -> list[int]:
    """The positions of `names` in the order in which people count: 2 before 10, b before C."""
    return sorted(range(len(names)), key=lambda position: _key(names[position]))


def _key(name: str) -> tuple[list[tuple[str, int]], str]:
    # Text and digits in turns, so that text is compared with text only.
    parts = re.split(r"(\d+)", name.casefold())
    return [(text, int(digits or 0)) for text, digits in zip(parts[::2], [*parts[1::2], ""], strict=True)], name
