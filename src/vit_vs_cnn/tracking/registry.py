"""The model registry: one registered model per data set, contestants compete as its versions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_vs_cnn.errors import PassingError, UserError
from vit_vs_cnn.tracking.run import RunRef
from vit_vs_cnn.tracking.store import experiment, find_run, model_of_run, open_client, store_errors, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHALLENGER = "challenger"


@dataclass(frozen=True)
class Candidate:
    """A trained contestant on its way into the registry; `metrics` are written on the version as tags."""

    contestant: str
    ref: RunRef
    val_accuracy: float
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def registered_name(data_name: str) -> str:
    """The registered model of a data set."""
    return f"{data_name}-classifier"


def register(name: str, candidates: list[Candidate]) -> dict[str, int]:
    """Make each candidate a version of the registered model `name`; the best by validation becomes `challenger`.

    A model that is registered already keeps its version. Returns the version of each contestant. Raises UserError
    where the store cannot be reached or does not have the training runs yet.
    """
    client = open_client()
    try:
        _ensure_registered_model(client, name)
        versions = {each.contestant: _register_one(client, name, each) for each in candidates}
        best = max(candidates, key=lambda each: each.val_accuracy)
        client.set_registered_model_alias(name, CHALLENGER, str(versions[best.contestant]))
    except store_errors() as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PassingError(
            f"register: the registry at {tracking_uri()} cannot be used ({reason}); when it is back, run "
            "`vit-vs-cnn sync` and then `dvc repro register`."
        ) from None
    return versions


def _ensure_registered_model(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=f"Contestants on {name.removesuffix('-classifier')}.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _register_one(client: "MlflowClient", name: str, candidate: Candidate) -> int:
    ref = candidate.ref
    experiment_id = experiment(client, ref.experiment).experiment_id
    run_id = ref.run_id or find_run(client, experiment_id, ref.key)
    model_id = model_of_run(client, run_id) if run_id else None
    if run_id is None or model_id is None:
        raise UserError(
            f"register: the training run of {candidate.contestant} is not in {tracking_uri()}; run `vit-vs-cnn sync` "
            f"if the store was away, or `dvc repro --force train@{candidate.contestant}` if it was deleted."
        )
    for known in client.search_model_versions(f"name = '{name}'"):
        if known.run_id == run_id:
            return int(known.version)
    figures = {key: json.dumps(value) for key, value in candidate.metrics.items()}
    version = client.create_model_version(
        name,
        source=f"models:/{model_id}",
        run_id=run_id,
        model_id=model_id,
        tags={"contestant": candidate.contestant, **candidate.tags, **figures},
        description=f"{candidate.contestant}: {candidate.tags.get('timm', '')}, "
        f"test accuracy {candidate.metrics.get('accuracy', float('nan')):.2%}",
    )
    return int(version.version)


def resolve_model_name(given: str | None, data_name: str | None) -> str:
    """The registered model that `given` means: its name, or that of its data set.

    Without it, the model of the data set `data_name` where the store has one, else the only one there is. Raises
    UserError with the names that there are where none or more than one is meant, PassingError where the store cannot be
    reached.
    """
    client = open_client()
    try:
        names = sorted(str(model.name) for model in client.search_registered_models(max_results=1000))
    except store_errors() as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PassingError(f"the registry at {tracking_uri()} cannot be reached ({reason}).") from None
    wanted = given or data_name
    meant = [name for name in (wanted, registered_name(wanted)) if name in names] if wanted else []
    if meant:
        return meant[0]
    if not names:
        raise UserError(f"{tracking_uri()} holds no registered model: run `dvc repro register` first.")
    if given:
        raise UserError(f"{tracking_uri()} has no registered model {given!r}; it has {', '.join(names)}.")
    if len(names) > 1:
        raise UserError(f"{tracking_uri()} has several registered models: name one of {', '.join(names)}.")
    return names[0]
