"""Old runs of the project's own store: which of them nothing needs any more, and their end."""

import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from vit_vs_cnn.core.errors import RunError, first_line
from vit_vs_cnn.core.paths import bytes_in, mlruns_dir
from vit_vs_cnn.tracking.store import KEY_TAG, open_client, store_errors, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

# The tags of a comparison's run that name the runs that it compares.
_COMPARED = "run."


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
    # A comparison that was made before the store had a training names it by its key.
    names = kept | {runs[run_id].data.tags[KEY_TAG] for run_id in kept}
    old = [run for run_id, run in runs.items() if run_id not in kept and not compared[run_id] & names]
    made = {run.info.run_id for run in old}
    models = [model for model in _models(client, experiments) if model.source_run_id in made]
    places = [*(run.info.artifact_uri for run in old), *(model.artifact_location for model in models)]
    size = sum(bytes_in(Path(unquote(urlsplit(place).path))) for place in places)
    return OldRuns(tuple(run.info.run_id for run in old), tuple(model.model_id for model in models), size)


def delete_runs(run_ids: Collection[str], model_ids: Collection[str]) -> None:
    """Delete the runs and models with all their files. Raises RunError where the store cannot be written.

    As `mlflow gc` does it, which can spare what a person put in the trash neither of models nor of experiments.
    """
    if not run_ids:
        return
    client = open_client()
    store = client._tracking_client.store
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    artifacts_at: Any = get_artifact_repository  # what it returns has methods without types
    try:
        # The runs last: a deletion that is killed finds the models again by the runs that made them.
        for model_id in model_ids:
            artifacts_at(client.get_logged_model(model_id).artifact_location).delete_artifacts()
            store._hard_delete_logged_model(model_id)
        for run_id in run_ids:
            artifacts_at(client.get_run(run_id).info.artifact_uri).delete_artifacts()
            store._hard_delete_run(run_id)
    except store_errors() as error:
        raise RunError(f"old runs cannot be deleted from {tracking_uri()}: {first_line(error)}") from error


def _runs(client: "MlflowClient", experiments: list[str]) -> "Iterator[Run]":
    """All runs, also those in the trash."""
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
