"""A run's results on its flow run's page: the answer, the table, the comparison's figures, the MLflow runs."""

import base64
import csv
import json
import re
from pathlib import Path

from vit_vs_cnn.config.load import read_settings
from vit_vs_cnn.core.console import markdown_text
from vit_vs_cnn.core.errors import without_password
from vit_vs_cnn.core.paths import COMPARE, PARAMS, REGISTERED, RUN_FILE, trained
from vit_vs_cnn.tracking.outbox import RunRef
from vit_vs_cnn.tracking.pages import comparison_page, run_page
from vit_vs_cnn.tracking.run import read_ref
from vit_vs_cnn.tracking.store import store_digest, tracking_uri

# The stages whose results are in the MLflow run of a training.
_TRACKED = ("train", "evaluate", "robustness", "cost", "explain")
_FIGURES = ("accuracy_and_latency", "accuracy_and_cost", "learning_by_epoch", "per_class", "reliability")


def publish_results(workspace: Path) -> None:
    """Make the page of results of the flow run that this process runs, if the pipeline in `workspace` compares."""
    from prefect.artifacts import create_markdown_artifact

    if has_comparison(workspace):
        answer = markdown_text(read_answer(workspace))
        runs = f"### Runs in MLflow\n\n{_mlflow_runs(workspace)}"
        parts = [f"**{answer}**", _table(workspace), runs, _figures(workspace)]
        beginning, _, more = answer.partition(". ")
        create_markdown_artifact("\n\n".join(parts), key="results", description=beginning + "." * bool(more))


def link_trainings(workspace: Path, stage: str) -> None:
    """Link the MLflow runs of the trainings that a stage records into, on the page of its task, which this thread runs.

    They are those of `train@<contestant>-<seed>`, or of all contestants and seeds where the stage names none.
    """
    from prefect.artifacts import create_link_artifact

    kind, _, of = stage.partition("@")
    contestant, _, seed = of.partition("-")
    if kind not in _TRACKED:
        return
    for file in (workspace / "trained").glob(f"{contestant or '*'}/{seed or '*'}/{RUN_FILE}"):
        ref = read_ref(file.parent)
        if page := run_page(ref):
            key = "mlflow-" + re.sub(r"[^a-z0-9]+", "-", ref.name.lower())
            create_link_artifact(page, link_text=f"{ref.name} in MLflow", key=key, description="Its run in MLflow")


def has_comparison(workspace: Path) -> bool:
    """Whether the pipeline in `workspace` has compared its contestants."""
    return (workspace / COMPARE / "comparison.csv").is_file()


def read_answer(workspace: Path) -> str:
    """The answer of the comparison."""
    answer: str = json.loads((workspace / COMPARE / "significance.json").read_text(encoding="utf-8"))["answer"]
    return answer


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
                "contestant": row["contestant"],
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


def _table(workspace: Path) -> str:
    """The comparison as a table in Markdown."""
    rows = result_rows(workspace)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([*row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _figures(workspace: Path) -> str:
    parts = []
    for name in _FIGURES:
        figure = workspace / COMPARE / f"{name}.svg"
        if figure.is_file():
            # On Prefect's dark page its ink would not be seen.
            page = figure.read_text(encoding="utf-8").replace("<svg ", '<svg style="background: #fff" ', 1)
            data = base64.b64encode(page.encode()).decode("ascii")
            title = name.replace("_", " ").capitalize()
            parts.append(f"### {title}\n\n![{title}](data:image/svg+xml;base64,{data})")
    return "\n\n".join(parts)


def read_trainings(workspace: Path) -> list[RunRef]:
    """The MLflow runs of all trainings of the pipeline in `workspace`."""
    settings = read_settings(workspace / PARAMS)
    return [read_ref(workspace / trained(name, seed)) for name in settings.models for seed in settings.seeds]


def _mlflow_runs(workspace: Path) -> str:
    refs = read_trainings(workspace)
    pages = {ref.name: run_page(ref) for ref in refs}
    lines = [f"- [{ref.name}]({pages[ref.name]})" if pages[ref.name] else f"- {_without_page(ref)}" for ref in refs]
    if compared := comparison_page(refs):
        lines.insert(0, f"- [Accuracy, loss and cost beside each other]({compared})")
    hint = (
        ""
        if all(pages.values())
        else f"\n\nThey are in {without_password(tracking_uri())}: `vit-vs-cnn up` shows them."
    )
    return "\n".join(lines) + hint


def _without_page(ref: RunRef) -> str:
    return f"{ref.name}: run {ref.run_id or 'not sent yet'} of experiment {ref.experiment}"
