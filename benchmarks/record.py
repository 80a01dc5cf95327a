"""Where the results of a benchmark go: a JSON file and a run of MLflow's experiment `benchmarks`, both on request.

Results are nested mappings of names to numbers, to lists of numbers (one of each repeat), or to texts.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from vit_vs_cnn.core.records import write_atomically

EXPERIMENT = "benchmarks"

json_option = click.option("--json", "file", type=click.Path(path_type=Path), help="Write the results to this file.")
mlflow_option = click.option(
    "--mlflow", "to_mlflow", is_flag=True, help=f"Log the results to MLflow's experiment {EXPERIMENT!r}."
)


def publish(name: str, results: Mapping[str, Any], file: Path | None, *, to_mlflow: bool) -> None:
    """Write the results of benchmark `name` to `file`, if one is given, and log them to MLflow, if asked to."""
    if file:
        file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if to_mlflow:
        _log(name, results)


class Draft:
    """What a benchmark has finished measuring, by key, in a file beside its output: after a kill it resumes there.

    Without an output nothing is kept.
    """

    def __init__(self, output: Path | None) -> None:
        self._path = output.with_name(f"{output.name}.unfinished") if output else None
        self._finished: dict[str, Any] = {}
        if self._path and self._path.is_file():
            self._finished = json.loads(self._path.read_text(encoding="utf-8"))

    def get(self, key: str) -> Any:
        """What was added under `key` in this or an earlier process, None if nothing was."""
        return self._finished.get(key)

    def add(self, key: str, measured: Any) -> None:
        """Keep what was measured; a kill leaves the file as it was before or as it is after."""
        self._finished[key] = measured
        if self._path:
            write_atomically(self._path, json.dumps(self._finished))

    def remove(self) -> None:
        """Remove the file, once the output has everything."""
        if self._path:
            self._path.unlink(missing_ok=True)


@contextmanager
def own_tracking_store(folder: str) -> Iterator[None]:
    """Track to a database in `folder` until the context ends, so that what is measured leaves no runs behind."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    try:
        yield
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _log(name: str, results: Mapping[str, Any]) -> None:
    from vit_vs_cnn.tracking.lineage import lineage_tags
    from vit_vs_cnn.tracking.store import experiment, open_client

    client = open_client()
    tags = lineage_tags() | {"mlflow.runName": name, "host.processor": platform.processor() or platform.machine()}
    found = experiment(client, EXPERIMENT, "Results of `benchmarks/*.py --mlflow`.")
    run_id = client.create_run(found.experiment_id, tags=tags).info.run_id
    for path, value in _leaves(results):
        if isinstance(value, str):
            client.log_param(run_id, path, value)
        else:
            for step, number in enumerate(value if isinstance(value, list) else [value]):
                client.log_metric(run_id, path, number, step=step)
    client.log_dict(run_id, dict(results), f"{name}.json")
    client.set_terminated(run_id)


def _leaves(results: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in results.items():
        # No other characters are allowed in MLflow's names.
        path = prefix + "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in str(key))
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}/")
        elif value is not None:
            yield path, value
