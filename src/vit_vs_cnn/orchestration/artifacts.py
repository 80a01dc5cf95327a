"""A run's results on its flow run's page: the table, the comparison's figures, the MLflow runs."""

import base64
import csv
import json
import os
from pathlib import Path

from vit_vs_cnn.core.errors import without_password
from vit_vs_cnn.core.paths import COMPARE, REGISTERED, RUN_FILE
from vit_vs_cnn.tracking.outbox import RunRef
from vit_vs_cnn.tracking.run import read_ref
from vit_vs_cnn.tracking.store import open_client, store_digest, tracking_server, tracking_uri

MLFLOW_UI_VARIABLE = "VIT_VS_CNN_MLFLOW_UI"
_FIGURES = ("accuracy_and_latency", "accuracy_and_cost", "learning_by_epoch", "per_class", "reliability")


def publish_results(workspace: Path) -> None:
    """Make the artifacts of the flow run that this process runs, from the outputs in `workspace`, if it compares."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    if has_comparison(workspace):
        create_table_artifact(result_rows(workspace), key="results", description="Measured on the test split")
        create_markdown_artifact(_figures(workspace), key="comparison", description="The comparison, in figures")
        create_markdown_artifact(_mlflow_runs(workspace), key="mlflow-runs", description="The runs in MLflow")


def has_comparison(workspace: Path) -> bool:
    """Whether the pipeline in `workspace` has compared its contestants."""
    return (workspace / COMPARE / "comparison.csv").is_file()


def is_registered_elsewhere(workspace: Path) -> bool:
    """Whether the versions of the pipeline in `workspace` are in another store than the present one.

    DVC does not know of stores: it would call the stage unchanged, and nothing would be registered here.
    """
    file = workspace / REGISTERED / "versions.json"
    record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return bool(record.get("store", store_digest()) != store_digest())


def result_rows(workspace: Path) -> list[dict[str, str]]:
    """The comparison as texts by column, a row per contestant."""
    with (workspace / COMPARE / "comparison.csv").open(encoding="utf-8", newline="") as file:
        return [
            {
                "model": row["contestant"],
                "timm": row["timm"],
                "test accuracy": f"{float(row['accuracy']):.2%}",
                f"{100 * float(row['confidence']):g} % interval": (
                    f"{float(row['accuracy_low']):.2%} – {float(row['accuracy_high']):.2%}"
                ),
                "s/epoch": f"{float(row['seconds_per_epoch']):.1f}",
                "parameters": f"{float(row['parameters']):,.0f}",
                "latency p50": f"{float(row['latency_p50_ms']):.1f} ms",
            }
            for row in csv.DictReader(file)
        ]


def _figures(workspace: Path) -> str:
    parts = []
    for name in _FIGURES:
        figure = workspace / COMPARE / f"{name}.svg"
        if figure.is_file():
            data = base64.b64encode(figure.read_bytes()).decode("ascii")
            title = name.replace("_", " ").capitalize()
            parts.append(f"### {title}\n\n![{title}](data:image/svg+xml;base64,{data})")
    return "\n\n".join(parts)


def _mlflow_runs(workspace: Path) -> str:
    address = tracking_server() or os.environ.get(MLFLOW_UI_VARIABLE)
    refs = [read_ref(file.parent) for file in sorted((workspace / "trained").glob(f"*/*/{RUN_FILE}"))]
    lines = [f"- {_link(ref, address)}" for ref in refs]
    hint = "" if address else f"\n\nThey are in {without_password(tracking_uri())}: `make ui` shows them."
    return "\n".join(lines) + hint


def _link(ref: RunRef, address: str | None) -> str:
    if address is None or ref.run_id is None:
        return f"{ref.name}: run {ref.run_id or 'not sent yet'} of experiment {ref.experiment}"
    experiment = open_client().get_experiment_by_name(ref.experiment)
    assert experiment is not None
    page = f"{address}/#/experiments/{experiment.experiment_id}/runs/{ref.run_id}"
    # Without it MLflow shows its pages about language models.
    return f"[{ref.name}]({page}?workflowType=machine_learning)"
