"""What becomes of a benchmark's figures: a JSON file and a run of MLflow's experiment `benchmarks`, where asked for.

Figures are nested mappings of names to numbers, to lists of numbers (one of each repeat), or to texts.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

EXPERIMENT = "benchmarks"

json_option = click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures here too.")
mlflow_option = click.option(
    "--mlflow", "to_mlflow", is_flag=True, help=f"Log the figures to MLflow's experiment {EXPERIMENT!r} too."
)


def publish(name: str, figures: Mapping[str, Any], file: Path | None, *, to_mlflow: bool) -> None:
    """Write the figures of benchmark `name` to `file` and log them, each where it is asked for."""
    if file:
        file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if to_mlflow:
        _log(name, figures)


@contextmanager
def own_tracking_store(folder: str) -> Iterator[None]:
    """Tracking goes to a database in `folder` meanwhile, so that what is measured leaves no runs behind."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    try:
        yield
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _log(name: str, figures: Mapping[str, Any]) -> None:
    from vit_vs_cnn.tracking.lineage import lineage_tags
    from vit_vs_cnn.tracking.store import experiment, open_client

    client = open_client()
    tags = lineage_tags() | {"mlflow.runName": name, "host.processor": platform.processor() or platform.machine()}
    run_id = client.create_run(experiment(client, EXPERIMENT).experiment_id, tags=tags).info.run_id
    for path, value in _leaves(figures):
        if isinstance(value, str):
            client.log_param(run_id, path, value)
        else:
            for step, number in enumerate(value if isinstance(value, list) else [value]):
                client.log_metric(run_id, path, number, step=step)
    client.log_dict(run_id, dict(figures), f"{name}.json")
    client.set_terminated(run_id)


def _leaves(figures: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in figures.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}/")
        elif value is not None:
            # MLflow's names take no more characters than these.
            yield "".join(each if each.isalnum() or each in "_-. /" else "_" for each in f"{path}{key}"), value
