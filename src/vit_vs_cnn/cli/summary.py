"""What a finished run prints at its end: the table, and where to look next."""

import json
from pathlib import Path

from vit_vs_cnn.core.console import table
from vit_vs_cnn.core.paths import COMPARE, REGISTERED
from vit_vs_cnn.orchestration.artifacts import result_rows
from vit_vs_cnn.orchestration.workspace import Run
from vit_vs_cnn.tracking.store import tracking_uri


def run_summary(finished: Run) -> str:
    """The table of the contestants, the report's place and the commands that show more."""
    report = finished.workspace / COMPARE / "report.html"
    registered = json.loads((finished.workspace / REGISTERED / "versions.json").read_text(encoding="utf-8"))
    here = Path.cwd()
    return "\n".join(
        [
            "",
            terminal_table(finished.workspace),
            "",
            f"report    {report.relative_to(here) if report.is_relative_to(here) else report}",
            f"registry  {registered['name']}, challenger: {registered['challenger']}   (vit-vs-cnn registry promote)",
            f"MLflow    make ui   (store: {tracking_uri()})",
            f"DVC       dvc exp show   (experiment: {finished.name})",
        ]
    )


def terminal_table(project: Path) -> str:
    """The table that a run ends with, from reports/compare of the folder `project`, and the answer below it."""
    rows = [{key: text for key, text in row.items() if key != "timm"} for row in result_rows(project)]
    verdicts = json.loads((project / COMPARE / "significance.json").read_text(encoding="utf-8"))
    return "\n".join([table([[*rows[0]], *([*row.values()] for row in rows)]), "", verdicts["answer"]])
