"""Progress bars: on a terminal as a person sees them, under a parent process as lines that it can read."""

import os
import re
from dataclasses import dataclass
from typing import Any

PROGRESS_VARIABLE = "VIT_VS_CNN_PROGRESS"

_SECONDS_BETWEEN_LINES = 1.0
_LINE_FORMAT = "{desc}: {percentage:.0f}%| {n_fmt}/{total_fmt}, {rate_fmt}, left {remaining}"
_LINE = re.compile(r"^(?P<what>.*?):? +(?P<percent>\d{1,3})%\| ?(?P<text>.*)$")


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is: percent from 0 to 100, what it is, and the rest of the bar's text."""

    percent: int
    what: str
    text: str


def bar_options() -> dict[str, Any]:
    """Arguments for tqdm: a bar on a terminal, plain lines where a parent process reads them, else nothing."""
    if os.environ.get(PROGRESS_VARIABLE):
        return {"disable": False, "mininterval": _SECONDS_BETWEEN_LINES, "bar_format": _LINE_FORMAT}
    return {"disable": None}


def read_progress(line: str) -> Progress | None:
    """The progress that `line` tells, None where it is another line."""
    found = _LINE.match(line)
    return Progress(int(found["percent"]), found["what"].strip(), found["text"].strip()) if found else None
