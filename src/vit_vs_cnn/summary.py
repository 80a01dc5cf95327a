"""What a finished run says at its end: the table, and where to look next."""

import json
from pathlib import Path

from vit_vs_cnn.layout import COMPARE, REGISTERED
from vit_vs_cnn.report.comparison import terminal_table
from vit_vs_cnn.runs import Run
from vit_vs_cnn.tracking.store import tracking_uri


def run_summary(finished: Run) -> str:
    """The table of the contestants, the report's place and the commands that show more."""
    report = finished.workspace / COMPARE / "report.html"
    registered = json.loads((finished.workspace / REGISTERED / "versions.json").read_text(encoding="utf-8"))
    return "\n".join(
        [
            "",
            terminal_table(finished.workspace),
            "",
            f"report    {_short(report)}",
            f"registry  {registered['name']}, challenger: {registered['challenger']}   (vit-vs-cnn registry promote)",
            f"MLflow    make ui   (store: {tracking_uri()})",
            f"DVC       dvc exp show   (experiment: {finished.name})",
        ]
    )


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
