"""The terminal: progress bars, which a parent process can read as lines, and aligned tables."""

import html
import math
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PROGRESS_VARIABLE = "VIT_VS_CNN_PROGRESS"

_SECONDS_BETWEEN_LINES = 1.0
_LINE_FORMAT = "{desc}: {percentage:.0f}%| {n_fmt}/{total_fmt}, {rate_fmt}, left {remaining}"
_LINE = re.compile(r"^(?P<task>.*?):? +(?P<percent>\d{1,3})%\| ?(?P<text>.*)$")


@dataclass(frozen=True)
class Progress:
    """The state of a progress bar: percent from 0 to 100, the task's name, and the rest of the bar's text."""

    percent: int
    task: str
    text: str


def bar_options() -> dict[str, Any]:
    """Arguments for tqdm: a bar on a terminal, plain lines where a parent process reads them, otherwise nothing."""
    if os.environ.get(PROGRESS_VARIABLE):
        return {"disable": False, "mininterval": _SECONDS_BETWEEN_LINES, "bar_format": _LINE_FORMAT}
    return {"disable": None}


def read_progress(line: str) -> Progress | None:
    """Parse a line that a progress bar wrote; None for any other line."""
    found = _LINE.match(line)
    return Progress(int(found["percent"]), found["task"].strip(), found["text"].strip()) if found else None


def printable(text: str, *, lines: bool = False) -> str:
    """The text with escapes for what a terminal or a page obeys or hides: control characters, marks of direction.

    Spaces of every width and the joiners of emoji and of several scripts stay, and with `lines` the ends of lines.
    """
    if text.isprintable():
        return text
    kept = "\u200c\u200d\n" if lines else "\u200c\u200d"
    return "".join(
        char
        if char.isprintable() or char in kept or unicodedata.category(char) == "Zs"
        else char.encode("unicode_escape").decode()
        for char in text
    )


def markdown_text(text: str) -> str:
    """The text as Markdown that shows it: no markup, no link, no further cell of a table, nothing that is hidden."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(printable(text), quote=False))


def inert(text: str) -> str:
    """As a cell that no spreadsheet takes for a formula, by the leading apostrophe that they hide (OWASP)."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def table(rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Format rows of equal length, the first one underlined; columns after `text_columns` are aligned right."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def points(fraction: float, digits: int = 1, *, sign: bool = False) -> str:
    """Format a fraction in percentage points, with a true minus sign and no negative zero."""
    value = round(100 * fraction, digits) + 0.0
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def two_digits(count: float) -> str:
    """Format a number to its first two digits, where more would say more than is known."""
    return f"{round(count, 2 - len(str(int(count)))):,.0f}"


def points_between(low: float, high: float) -> str:
    """Format the ends of an interval of a difference in percentage points, with their signs."""
    return between(100 * low, 100 * high, 1)


def between(low: float, high: float, digits: int) -> str:
    """Format the ends of an interval of a difference with their signs; an interval without ends is none."""
    if not math.isfinite(high - low):
        return "no interval"
    return f"{low:+z.{digits}f} to {high:+z.{digits}f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Format a time for people: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
