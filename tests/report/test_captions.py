"""captions.yaml and the code that asks for its texts have the same entries, and the same placeholders."""

import ast
import string
from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from vit_vs_cnn.config.yaml_text import read_yaml
from vit_vs_cnn.data.statistics import MEASURES
from vit_vs_cnn.evaluation.faithfulness import Verdict
from vit_vs_cnn.report import tuning
from vit_vs_cnn.report.figure_writer import FigureWriter
from vit_vs_cnn.report.style import new_figure

SOURCE = Path(tuning.__file__).parent
PARTS = {"add": ("title", "caption"), "add_images": ("title", "caption"), "skip": ("skipped",)}
# What the loops over figures ask for.
VARIABLES = {
    ("eda", "measure"): MEASURES,
    ("eda", "side"): ("below", "above"),
    ("explanation", "name"): ("same_images", "mistakes"),
    ("explanation", "verdict"): get_args(Verdict),
    ("tuning", "name"): tuple(tuning.PLOTS),
}


def subjects() -> list[tuple[str, ast.Module]]:
    """Each module of the report, the stages and the studies that writes figures, with its subject."""
    found = []
    for path in (path for room in ("report", "stages", "studies") for path in (SOURCE.parent / room).glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        found += [
            (call.args[1].value, module)
            for call in ast.walk(module)
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "FigureWriter"
        ]
    return found


def choices(subject: str, argument: ast.expr) -> list[str]:
    """The texts that an argument can be: a literal, either branch of a condition, or one of `VARIABLES`."""
    match argument:
        case ast.Constant(value):
            return [value]
        case ast.IfExp(body=body, orelse=orelse):
            return [*choices(subject, body), *choices(subject, orelse)]
        case ast.Name(identifier):
            return list(VARIABLES[subject, identifier])
    raise AssertionError(ast.unparse(argument))


def requests() -> dict[tuple[str, str, str], list[set[str | None]]]:
    """Subject, name and part of every text that the code asks for, with the placeholders that each call fills."""
    asked: dict[tuple[str, str, str], list[set[str | None]]] = {}
    for subject, module in subjects():
        for call in ast.walk(module):
            if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("writer."):
                method = ast.unparse(call.func).removeprefix("writer.")
                if method not in (*PARTS, "text"):
                    continue
                names = choices(subject, call.args[0])
                parts = PARTS.get(method) or choices(subject, call.args[1])
                for name, part in product(names, parts):
                    filled = {keyword.arg for keyword in call.keywords}
                    asked.setdefault((subject, name, part), []).append(filled)
    return asked


def texts() -> dict[tuple[str, str, str], str]:
    return {
        (subject, name, part): text
        for subject, figures in read_yaml(SOURCE / "captions.yaml").items()
        for name, parts in figures.items()
        for part, text in parts.items()
    }


def test_every_text_is_asked_for_and_every_text_asked_for_is_there() -> None:
    assert set(texts()) == set(requests())


def test_every_placeholder_has_a_value_where_the_text_is_asked_for() -> None:
    for entry, calls in requests().items():
        placeholders = {field for _, field, _, _ in string.Formatter().parse(texts()[entry]) if field is not None}
        for filled in calls:
            assert placeholders <= filled or None in filled, entry  # None stands for **values


def test_a_text_that_is_not_there_and_a_placeholder_without_a_value_are_errors(tmp_path: Path) -> None:
    writer = FigureWriter(tmp_path, "comparison")
    with pytest.raises(KeyError, match="no_such_figure"):
        writer.add("no_such_figure", new_figure(1, 1), "seen")
    with pytest.raises(KeyError, match="first"):
        writer.add("confusion_difference", new_figure(1, 1), "seen", second="vit")


def test_values_are_not_read_as_placeholders(tmp_path: Path) -> None:
    writer = FigureWriter(tmp_path, "comparison")
    assert writer.text("confusion_difference", "title", first="{second}", second="vit") == (
        "Where {second} and vit differ"
    )
