"""What a finished run ends with: the table, the answer and where everything is; for people, and as JSON."""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_vs_cnn.core.console import printable, table
from vit_vs_cnn.core.errors import without_password
from vit_vs_cnn.core.paths import COMPARE, REGISTERED
from vit_vs_cnn.orchestration.artifacts import has_comparison, read_answer, read_trainings, result_rows
from vit_vs_cnn.tracking.pages import USUAL_PAGES, comparison_page, pages_address
from vit_vs_cnn.tracking.store import tracking_uri

if TYPE_CHECKING:
    from vit_vs_cnn.orchestration.workspace import PipelineRun


def run_summary(finished: "PipelineRun") -> str:
    """The table of the contestants, the report's place and the commands that show more."""
    report, here = finished.workspace / COMPARE / "report.html", Path.cwd()
    registered = _registered(finished.workspace)
    promote = f"vit-vs-cnn registry promote --registry {finished.settings.data.name}"
    address, store = pages_address(), without_password(tracking_uri())
    page = comparison_page(read_trainings(finished.workspace), address or USUAL_PAGES)
    start = "" if address else "vit-vs-cnn up, then "
    return f"""
{results_table(finished.workspace)}

time      {finished.summary}
report    {report.relative_to(here) if report.is_relative_to(here) else report}
registry  {registered["name"]}: {registered["reason"]}   ({promote})
MLflow    {start}{page or store}
DVC       dvc exp show   (experiment: {finished.name})"""


def results_table(project: Path) -> str:
    """The table that a run ends with, from reports/compare of the folder `project`, and the answer below it."""
    rows = [{key: text for key, text in row.items() if key != "timm"} for row in result_rows(project)]
    return "\n".join([table([[*rows[0]], *([*row.values()] for row in rows)]), "", printable(read_answer(project))])


def run_record(finished: "PipelineRun") -> dict[str, Any]:
    """What `run --json` prints; what only a comparison has is null or empty where there is none."""
    done = {*finished.ran, *finished.cached}
    is_compared = "compare" in done and has_comparison(finished.workspace)
    trainings = read_trainings(finished.workspace) if is_compared else []
    return {
        "name": finished.name,
        "workspace": str(finished.workspace),
        "seconds": round(finished.seconds, 1),
        "ran": finished.ran,
        "cached": finished.cached,
        "answer": read_answer(finished.workspace) if is_compared else None,
        "contestants": _contestants(finished.workspace) if is_compared else [],
        "report": str(finished.workspace / COMPARE / "report.html") if is_compared else None,
        "registry": _registered(finished.workspace) if "register" in done else None,
        "mlflow": {
            "store": without_password(tracking_uri()),
            "page": comparison_page(trainings),
            "runs": {training.name: training.run_id for training in trainings},
        },
    }


def _registered(workspace: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((workspace / REGISTERED / "versions.json").read_text(encoding="utf-8"))
    return record


def _contestants(workspace: Path) -> list[dict[str, Any]]:
    """The rows of comparison.csv, numbers as numbers."""
    with (workspace / COMPARE / "comparison.csv").open(encoding="utf-8", newline="") as file:
        return [{key: _number(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _number(text: str) -> float | int | str | None:
    try:
        number = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return text or None
    return number if isinstance(number, int | float) else text
