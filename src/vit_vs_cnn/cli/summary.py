"""What a finished run says at its end: the table, and where to look next."""

import csv
import json
from pathlib import Path

from vit_vs_cnn.core.console import table
from vit_vs_cnn.core.paths import COMPARE, REGISTERED
from vit_vs_cnn.orchestration.workspace import Run
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


def terminal_table(project: Path) -> str:
    """The table that a run ends with, from reports/compare of the folder `project`, and the answer below it."""
    with (project / COMPARE / "comparison.csv").open(encoding="utf-8", newline="") as file:
        contestants = list(csv.DictReader(file))
    interval = f"{100 * float(contestants[0]['confidence']):g} % interval"
    rows = [
        (
            each["contestant"],
            f"{float(each['accuracy']):.2%}",
            f"{float(each['accuracy_low']):.2%} – {float(each['accuracy_high']):.2%}",
            f"{float(each['seconds_per_epoch']):.1f}",
            f"{int(each['parameters']):,}",
            f"{float(each['latency_p50_ms']):.1f} ms",
        )
        for each in contestants
    ]
    header = ("model", "test accuracy", interval, "s/epoch", "parameters", "latency p50")
    verdicts = json.loads((project / COMPARE / "significance.json").read_text(encoding="utf-8"))
    return "\n".join([table([header, *rows]), "", verdicts["answer"]])


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
