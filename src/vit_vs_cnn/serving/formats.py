"""Predictions as lines of text: an aligned table, JSON lines, CSV."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from vit_vs_cnn.serving.predict import Prediction

Format = Literal["table", "json", "csv"]


@dataclass(frozen=True)
class Printed:
    """A format: its header, None where it has none, and the line for a prediction."""

    header: str | None
    line: Callable[[Prediction], str]


def printed(kind: Format, classes: Sequence[str]) -> Printed:
    """The format of that name for predictions of these classes."""
    if kind == "json":
        return Printed(None, lambda prediction: json.dumps(prediction.as_json()))
    if kind == "csv":
        return Printed(_csv("file", "class", "probability"), lambda each: _csv(each.file, *map(str, each.top[0])))
    width = max(len(name) for name in ("class", *classes))
    return Printed(
        f"{'class':<{width}}  probability  file",
        # The file comes last, or the longest name would have to be known before the first line.
        lambda each: f"{each.top[0][0]:<{width}}  {each.top[0][1]:>11.4f}  {shown(each.file)}",
    )


def shown(name: str) -> str:
    """A file's name on one line: what cannot be printed is escaped."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in name)


def _csv(*fields: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(fields)
    return line.getvalue().removesuffix("\n")
