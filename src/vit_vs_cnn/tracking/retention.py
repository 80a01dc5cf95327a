"""Old runs of the project's own store: which of them nothing needs any more, and their end by MLflow's own `gc`."""

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from vit_vs_cnn.core.errors import RunError
from vit_vs_cnn.core.paths import bytes_in, mlruns_dir
from vit_vs_cnn.tracking.store import KEY_TAG, open_client, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

# The tags of a comparison's run that name the runs that it compares.
_COMPARED = "run."
# The operating system limits the length of an argument.
_RUNS_PER_COMMAND = 1000


@dataclass(frozen=True)
class OldRuns:
    """Runs that nothing needs, the models that they logged, and the bytes of the files of both."""

    run_ids: tuple[str, ...] = ()
    model_ids: tuple[str, ...] = ()
    size: int = 0


def find_old_runs(days: float, needed_keys: Collection[str]) -> OldRuns:
    """The stages' runs that ended more than `days` days ago and that nothing needs.

    Needed are those of registered versions and of `needed_keys`, with their parents and children, and comparisons of
    them. The history of a registered model and runs that people made themselves are nobody's to delete, nor is
    anything in a store that is not the project's own.
    """
    if tracking_uri() != f"sqlite:///{mlruns_dir() / 'mlflow.db'}" or not (mlruns_dir() / "mlflow.db").is_file():
        return OldRuns()
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    client = open_client()
    experiments = [found.experiment_id for found in client.search_experiments()]
    runs = {run.info.run_id: run for run in _runs(client, experiments) if KEY_TAG in run.data.tags}
    registered = {version.run_id for version in client.search_model_versions()}
    limit = 1000 * (time.time() - days * 86_400)

    def is_needed(run: "Run") -> bool:
        named = run.info.run_id in registered or run.data.tags[KEY_TAG] in needed_keys
        return named or run.info.status == "RUNNING" or (run.info.end_time or run.info.start_time) >= limit

    families: dict[str, set[str]] = defaultdict(set)
    for run_id, run in runs.items():
        families[run.data.tags.get(MLFLOW_PARENT_RUN_ID, run_id)].add(run_id)
    kept = {one for family in families.values() if any(is_needed(runs[run_id]) for run_id in family) for one in family}
    compared = {
        run_id: {value for tag, value in run.data.tags.items() if tag.startswith(_COMPARED)}
        for run_id, run in runs.items()
    }
    old = [run for run_id, run in runs.items() if run_id not in kept and not compared[run_id] & kept]
    made = {run.info.run_id for run in old}
    models = [model for model in _models(client, experiments) if model.source_run_id in made]
    places = [*(run.info.artifact_uri for run in old), *(model.artifact_location for model in models)]
    size = sum(bytes_in(Path(unquote(urlsplit(place).path))) for place in places)
    return OldRuns(tuple(run.info.run_id for run in old), tuple(model.model_id for model in models), size)


def delete_runs(old: OldRuns) -> None:
    """Delete the runs and models with all their files. Raises RunError where `mlflow gc` fails."""
    client = open_client()
    for run_id in old.run_ids:
        if client.get_run(run_id).info.lifecycle_stage == "active":
            client.delete_run(run_id)
    for model_id in old.model_ids:
        client.delete_logged_model(model_id)
    with _without_trashed_experiments(client):
        for start in range(0, len(old.run_ids), _RUNS_PER_COMMAND):
            _collect_garbage(old.run_ids[start : start + _RUNS_PER_COMMAND])


def _collect_garbage(run_ids: Sequence[str]) -> None:
    store = ["--backend-store-uri", tracking_uri(), "--tracking-uri", tracking_uri()]
    command = [sys.executable, "-m", "mlflow", "gc", *store, "--run-ids", ",".join(run_ids)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise RunError(f"`mlflow gc` failed: {answer.stderr.strip()}")


@contextmanager
def _without_trashed_experiments(client: "MlflowClient") -> Iterator[None]:
    """Take the experiments that a person deleted out of the trash meanwhile: `gc` would delete them for good."""
    from mlflow.entities import ViewType

    trashed = [found.experiment_id for found in client.search_experiments(ViewType.DELETED_ONLY)]
    for experiment_id in trashed:
        client.restore_experiment(experiment_id)
    try:
        yield
    finally:
        for experiment_id in trashed:
            client.delete_experiment(experiment_id)


def _runs(client: "MlflowClient", experiments: list[str]) -> "Iterator[Run]":
    """All runs, also those in the trash: a deletion that was killed is continued."""
    from mlflow.entities import ViewType

    token = ""
    while token is not None:
        page = client.search_runs(experiments, "", ViewType.ALL, max_results=1000, page_token=token or None)
        yield from page
        token = page.token


def _models(client: "MlflowClient", experiments: list[str]) -> "Iterator[LoggedModel]":
    token = ""
    while token is not None:
        page = client.search_logged_models(experiments, max_results=50, page_token=token or None)
        yield from page
        token = page.token
