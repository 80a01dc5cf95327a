"""The tracking store: where it is, and how a journal gets into it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_vs_cnn.core.paths import mlruns_dir
from vit_vs_cnn.tracking.outbox import Outbox

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

KEY_TAG = "vit_vs_cnn.key"
_PARENT_TAG = "mlflow.parentRunId"
# Without it MLflow's pages open an experiment as one about language models.
_TRAINING_PAGES = {"mlflow.experimentKind": "custom_model_development"}


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file in the project's mlruns/."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{mlruns_dir() / 'mlflow.db'}"


def tracking_server() -> str | None:
    """The address of the tracking server, None where the store is a database that the stages open themselves."""
    uri = tracking_uri()
    return uri.rstrip("/") if uri.startswith(("http://", "https://")) else None


def open_client() -> "MlflowClient":
    """A client of the tracking store. It does not connect until it is used, except that SQLite's file is created."""
    # MLflow's own defaults would hold a training up for minutes when its server is away.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    _quiet_storekeeping()
    import mlflow
    from mlflow import MlflowClient

    uri = tracking_uri()
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(uri)  # the registry of a local store resolves models by this, not by the client
    return MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI", uri))


def store_errors() -> tuple[type[Exception], ...]:
    """What the client raises where the store cannot be reached, read or written."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def experiment(client: "MlflowClient", name: str) -> "Experiment":
    """The experiment `name`, created where it does not exist."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # Without a server MLflow would put artifacts under the working directory, which differs between runs.
        local = tracking_uri().startswith("sqlite:")
        location = (mlruns_dir() / "artifacts" / name).as_uri() if local else None
        try:
            client.create_experiment(name, artifact_location=location, tags=_TRAINING_PAGES)
        except MlflowException:
            if client.get_experiment_by_name(name) is None:
                raise
        found = client.get_experiment_by_name(name)
    assert found is not None
    return found


def find_run(client: "MlflowClient", experiment_id: str, key: str) -> str | None:
    """The id of the run that carries `key`, None if the store has none."""
    runs = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return runs[0].info.run_id if runs else None


def send(journal: Outbox, client: "MlflowClient") -> None:
    """Bring the store up to date with the journal. Raises one of `store_errors` where that fails halfway.

    It can be repeated: what was sent twice is in the store once.
    """
    if journal.sent.run_id is None:
        journal.mark_delivered(run_id=_create_or_find_run(journal, client))
    assert journal.sent.run_id is not None
    for event in journal.unsent():
        _send_event(event, journal, client, journal.sent.run_id)
        journal.mark_delivered(events=1)


def model_of_run(client: "MlflowClient", run_id: str) -> str | None:
    """The id of the logged model that the run made, None if it made none."""
    outputs = client.get_run(run_id).outputs
    models = outputs.model_outputs if outputs else []
    return models[-1].model_id if models else None


def _create_or_find_run(journal: Outbox, client: "MlflowClient") -> str:
    from mlflow.exceptions import MlflowException

    header = journal.header
    experiment_id = experiment(client, header.experiment).experiment_id
    found = find_run(client, experiment_id, header.key)
    if found is not None:
        return found
    if not header.own:
        raise MlflowException(f"the run {header.name} that this belongs to is not in the store yet")
    tags = {KEY_TAG: header.key}
    if header.parent is not None:
        parent = find_run(client, experiment_id, header.parent)
        if parent is None:
            raise MlflowException(f"the run that {header.name} is a part of is not in the store yet")
        tags[_PARENT_TAG] = parent
    run = client.create_run(experiment_id, header.created_ms, tags, header.name)
    return str(run.info.run_id)


def _send_event(event: dict[str, Any], journal: Outbox, client: "MlflowClient", run_id: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    match event["kind"]:
        case "params":
            # MLflow refuses a parameter's second value, and a batch over 100: a resumed run repeats the same ones.
            pairs = [Param(key, str(value)) for key, value in event["values"].items()]
            for start in range(0, len(pairs), 100):
                client.log_batch(run_id, params=pairs[start : start + 100])
        case "tags":
            client.log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in event["values"].items()])
        case "metrics":
            link: dict[str, Any] = {}
            if event.get("dataset"):
                link = {"model_id": model_of_run(client, run_id), **event["dataset"]}
            client.log_batch(
                run_id,
                metrics=[
                    Metric(key, value, event["time_ms"], event["step"], run_id=run_id, **link)
                    for key, value in event["values"].items()
                ],
            )
        case "artifact":
            source = journal.folder / event["place"]
            if source.is_dir():
                client.log_artifacts(run_id, str(source), event["folder"])
            else:
                client.log_artifact(run_id, str(source), event["folder"])
        case "dataset":
            dataset = Dataset(event["name"], event["digest"], "local", event["source"], profile=event["profile"])
            context = InputTag("mlflow.data.context", event["context"])
            client.log_inputs(run_id, [DatasetInput(dataset, [context])])
        case "model" if model_of_run(client, run_id) is None:
            _log_model(event, journal.folder / event["place"], client, run_id)
        case "finish":
            client.set_terminated(run_id, event["status"], event["time_ms"])
        case "died" if client.get_run(run_id).info.status == "RUNNING":
            # Otherwise the run was gone on with, and ended, on another machine.
            client.set_terminated(run_id, "KILLED", event["time_ms"])


def _log_model(event: dict[str, Any], folder: Path, client: "MlflowClient", run_id: str) -> None:
    from mlflow.entities import LoggedModelOutput

    experiment_id = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(
        experiment_id, event["name"], run_id, event["tags"], event["params"], event["type"]
    )
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=event["step"])])


def _quiet_storekeeping() -> None:
    import logging

    for name in ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
