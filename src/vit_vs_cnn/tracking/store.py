"""The tracking store: where it is, and how an outbox is delivered to it."""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import mlruns_dir
from vit_vs_cnn.core.records import digest_of
from vit_vs_cnn.core.sqlite import require_sound_database
from vit_vs_cnn.tracking.outbox import Event, Header, Outbox
from vit_vs_cnn.tracking.relocation import follow_move
from vit_vs_cnn.tracking.views import NOTE_TAG, describe_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

KEY_TAG = "vit_vs_cnn.key"
_PARENT_TAG = "mlflow.parentRunId"
# Without it MLflow's pages open an experiment as one about language models.
_TRAINING_PAGES = {"mlflow.experimentKind": "custom_model_development"}
_CLIENT_OPTIONS = {
    # With MLflow's own defaults a training would wait minutes for a server that is unreachable.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # Artifacts through its server: addresses of an object store behind it need not lead there from here.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_TALKATIVE_LOGGERS = ("alembic", "mlflow.store.model_registry", "mlflow.tracking")
# What it logs, with a traceback, it also raises.
_REPEATING_LOGGER = "mlflow.store.db.utils"


class MissingRunError(UserError):
    """The store does not have the run that records belong to, yet or any more."""


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file in the project's mlruns/."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{mlruns_dir() / 'mlflow.db'}"


def tracking_server() -> str | None:
    """The address of the tracking server, None where the store is a database that the stages open themselves."""
    uri = tracking_uri()
    return uri.rstrip("/") if uri.startswith(("http://", "https://")) else None


def check_store() -> None:
    """Look at a store that is an SQLite file, and follow it where the project was moved; MLflow need not run.

    Raises UserError where the file is damaged.
    """
    uri = tracking_uri()
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///"))
        database.parent.mkdir(parents=True, exist_ok=True)
        require_sound_database(database)
        follow_move(database)


def open_client() -> "MlflowClient":
    """A client of the tracking store. It connects when it is first used; only SQLite's file is created at once.

    Raises UserError where that file is damaged.
    """
    for name, value in _CLIENT_OPTIONS.items():
        os.environ.setdefault(name, value)
    for name in _TALKATIVE_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(_REPEATING_LOGGER).setLevel(logging.CRITICAL)
    import mlflow
    from mlflow import MlflowClient

    uri = tracking_uri()
    check_store()
    mlflow.set_tracking_uri(uri)  # the registry of a local store resolves models by this, not by the client
    return MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI", uri))


def store_digest() -> str:
    """What identifies the tracking store, without its address, which may hold a password."""
    return digest_of(tracking_uri().encode())[:12]


def store_errors() -> tuple[type[Exception], ...]:
    """What the client raises where the store cannot be reached, read or written."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def experiment(client: "MlflowClient", name: str, about: str = "") -> "Experiment":
    """The experiment `name`: created where it does not exist, restored where somebody deleted it in MLflow's pages.

    A new one has the description `about`.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # Without a server MLflow would put artifacts under the working directory, which differs between runs.
        is_file = tracking_uri().startswith("sqlite:")
        location = (mlruns_dir() / "artifacts" / name).as_uri() if is_file else None
        tags = _TRAINING_PAGES | ({NOTE_TAG: about} if about else {})
        if is_file:
            _remove_default_of_new_store(client)
        try:
            found = client.get_experiment(client.create_experiment(name, location, tags))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise  # and not because another process was faster
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
        print(f"note: the experiment {name} had been deleted in MLflow; it is restored.", file=sys.stderr)
        found = client.get_experiment(found.experiment_id)
    return found


def _remove_default_of_new_store(client: "MlflowClient") -> None:
    """Delete the experiment `Default` of a store that has no other one and no run yet; nothing here uses it."""
    from mlflow.entities import ViewType

    found = client.search_experiments(ViewType.ALL, max_results=2)
    names = [(one.name, one.lifecycle_stage) for one in found]
    if names == [("Default", "active")] and not client.search_runs(
        [found[0].experiment_id], run_view_type=ViewType.ALL, max_results=1
    ):
        client.delete_experiment(found[0].experiment_id)


def find_run(client: "MlflowClient", experiment_id: str, key: str) -> str | None:
    """The id of the run that carries `key`, None if the store has none."""
    runs = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return runs[0].info.run_id if runs else None


def model_of_run(client: "MlflowClient", run_id: str) -> str | None:
    """The id of the logged model that the run made, None if it made none."""
    outputs = client.get_run(run_id).outputs
    models = outputs.model_outputs if outputs else []
    return models[-1].model_id if models else None


def deliver(outbox: Outbox, client: "MlflowClient") -> str:
    """Deliver what is pending; returns the run's id. Raises one of `store_errors` where that fails halfway.

    It can be repeated: what was delivered twice is in the store once.
    """
    run_id = outbox.header.run_id
    if run_id is None:
        experiment_id = str(experiment(client, outbox.header.experiment).experiment_id)
        run_id = _find_or_create_run(outbox.header, experiment_id, client)
        outbox.mark_created(run_id, experiment_id)
    for event in outbox.pending:
        deliver_event(event, outbox.folder, client, run_id)
        outbox.mark_delivered()
    return run_id


def deliver_event(event: Event, folder: Path, client: "MlflowClient", run_id: str) -> None:
    """Deliver one event; the path of its files is absolute or relative to `folder`."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    match event["kind"]:
        case "params":
            # MLflow refuses another value of a parameter: a run that is resumed elsewhere keeps what it began with.
            known = client.get_run(run_id).data.params
            client.log_batch(run_id, params=[Param(*item) for item in event["values"].items() if item[0] not in known])
        case "tags":
            client.log_batch(run_id, tags=[RunTag(*item) for item in event["values"].items()])
        case "metrics":
            shared = {"timestamp": event["time_ms"], "step": event["step"], "run_id": run_id}
            if event["dataset"]:
                shared |= {"model_id": model_of_run(client, run_id), **event["dataset"]}
            metrics = [Metric(key, value, **shared) for key, value in event["values"].items()]
            client.log_batch(run_id, metrics)
        case "dataset":
            context = InputTag("mlflow.data.context", event["context"])
            client.log_inputs(run_id, [DatasetInput(Dataset(**event["dataset"]), [context])])
        case "artifact":
            path = folder / event["path"]
            log = client.log_artifacts if path.is_dir() else client.log_artifact
            log(run_id, str(path), event["folder"])
        case "images":
            _deliver_images(event, folder / event["path"], client, run_id)
        case "experiment":
            experiment_id = _experiment_of(run_id, client)
            compared = {key: find_run(client, experiment_id, key) for key in event["compared"]}
            describe_experiment(client, experiment_id, event["about"], event["tags"], compared)
        case "parent":
            client.set_tag(run_id, _PARENT_TAG, _parent(event["key"], _experiment_of(run_id, client), client))
        case "model" if model_of_run(client, run_id) is None:
            _deliver_model(event, folder / event["path"], client, run_id)
        case "finish":
            _finish(event, client, run_id)
        case "killed" if client.get_run(run_id).info.status == "RUNNING":
            client.set_terminated(run_id, "KILLED", event["time_ms"])


def _finish(event: Event, client: "MlflowClient", run_id: str) -> None:
    if event["status"] == "FINISHED" and "failure" in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, "failure")  # of an earlier attempt, which was stopped
    client.set_terminated(run_id, event["status"], event["time_ms"])


def _experiment_of(run_id: str, client: "MlflowClient") -> str:
    return str(client.get_run(run_id).info.experiment_id)


def _find_or_create_run(header: Header, experiment_id: str, client: "MlflowClient") -> str:
    found = find_run(client, experiment_id, header.key)
    if found is not None:
        return found
    if not header.creates_run:
        raise MissingRunError(f"the run {header.name} that this is added to is not in the store yet")
    tags = {KEY_TAG: header.key}
    if header.parent is not None:
        tags[_PARENT_TAG] = _parent(header.parent, experiment_id, client)
    return str(client.create_run(experiment_id, header.created_ms, tags, header.name).info.run_id)


def _parent(key: str, experiment_id: str, client: "MlflowClient") -> str:
    run_id = find_run(client, experiment_id, key)
    if run_id is None:
        raise MissingRunError("the run that it is a child of is not in the store yet")
    return run_id


def _deliver_images(event: Event, folder: Path, client: "MlflowClient", run_id: str) -> None:
    """Log the images <step>.png of a folder for MLflow's image grid."""
    from PIL import Image

    # A delivery that failed halfway has logged the first ones; MLflow names them by key, step and time.
    present = [file.path for file in client.list_artifacts(run_id, "images")]
    for path in sorted(folder.glob("*.png"), key=lambda path: int(path.stem)):
        name, time_ms = f"{event['key'].replace('/', '~')}+step+{path.stem}+", event["time_ms"]
        if not any(name in logged and str(time_ms) in logged for logged in present):
            with Image.open(path) as image:
                client.log_image(run_id, image, key=event["key"], step=int(path.stem), timestamp=time_ms)


def _deliver_model(event: Event, folder: Path, client: "MlflowClient", run_id: str) -> None:
    from mlflow.entities import LoggedModelOutput

    experiment_id = _experiment_of(run_id, client)
    # A delivery that failed halfway has created it.
    found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'", max_results=1)
    model = found[0] if found else client.create_logged_model(experiment_id, source_run_id=run_id, **event["model"])
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=event["step"])])
