"""The model registry: one registered model per data set, contestants compete as its versions."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vit_vs_cnn.core.errors import TransientError, UserError
from vit_vs_cnn.tracking.outbox import RunRef
from vit_vs_cnn.tracking.store import experiment, find_run, model_of_run, open_client, store_errors, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER = "challenger"
CHAMPION = "champion"
# The tag of a version that says on which test images it was evaluated.
TEST_DIGEST = "data.test_digest"
# What the columns of MLflow's databases hold.
_LONGEST_DESCRIPTION = 5000


@dataclass(frozen=True)
class Candidate:
    """A trained contestant on its way into the registry; metrics and tags are written on the version."""

    contestant: str
    ref: RunRef
    val_accuracy: float
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    card: str = ""


@dataclass(frozen=True)
class Version:
    """A version of the registered model, with the aliases that point to it and the facts written on it."""

    number: int
    run_id: str
    created_ms: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    card: str

    @property
    def contestant(self) -> str:
        """The contestant's name in the experiment that trained it."""
        return self.tags.get("contestant", "?")

    def figure(self, name: str) -> float | None:
        """A number that was written on the version, None where it has none of that name."""
        return json.loads(self.tags[name]) if name in self.tags else None


def registered_name(data_name: str) -> str:
    """The registered model of a data set."""
    return f"{data_name}-classifier"


class Registry:
    """The registered model `name` in the tracking store."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.client = open_client()

    def create(self) -> None:
        """Create the registered model where it does not exist."""
        from mlflow.exceptions import MlflowException

        try:
            about = f"Contestants on {self.name.removesuffix('-classifier')}."
            self.client.create_registered_model(self.name, description=about)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def add(self, candidate: Candidate) -> int:
        """Make `candidate` a version, or find the one that it is; returns its number.

        Raises UserError where the store does not have its training run.
        """
        ref = candidate.ref
        experiment_id = experiment(self.client, ref.experiment).experiment_id
        run_id = ref.run_id or find_run(self.client, experiment_id, ref.key)
        model_id = model_of_run(self.client, run_id) if run_id else None
        if run_id is None or model_id is None:
            raise UserError(
                f"register: the training run of {candidate.contestant} is not in {tracking_uri()}; run `vit-vs-cnn "
                f"sync` if the store was away, or `dvc repro --force train@{candidate.contestant}` if it was deleted."
            )
        for known in self.client.search_model_versions(f"name = '{self.name}'"):
            if known.run_id == run_id:
                return int(known.version)
        figures = {key: json.dumps(value) for key, value in candidate.metrics.items()}
        version = self.client.create_model_version(
            self.name,
            source=f"models:/{model_id}",
            run_id=run_id,
            model_id=model_id,
            tags={"contestant": candidate.contestant, **figures, **candidate.tags},
            description=candidate.card[:_LONGEST_DESCRIPTION],
        )
        return int(version.version)

    def aliases(self) -> dict[str, int]:
        """The version that each alias points to. Raises UserError where there is no registered model."""
        from mlflow.exceptions import MlflowException

        try:
            aliases = self.client.get_registered_model(self.name).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise UserError(f"{self.name}: not in the registry; `vit-vs-cnn run` registers what it trained.") from None
        return {alias: int(version) for alias, version in aliases.items()}

    def versions(self) -> list[Version]:
        """All versions, the newest first."""
        aliases = self.aliases()
        found = self.client.search_model_versions(f"name = '{self.name}'")
        return sorted((_version(each, aliases) for each in found), key=lambda each: -each.number)

    def version(self, given: str | int) -> Version:
        """The version with this number or alias. Raises UserError where there is none."""
        from mlflow.exceptions import MlflowException

        aliases = self.aliases()
        number = aliases.get(str(given)) or str(given)
        try:
            return _version(self.client.get_model_version(self.name, str(number)), aliases)
        except MlflowException as error:
            if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                raise
        known = ", ".join([*(str(each.number) for each in reversed(self.versions())), *aliases]) or "none"
        raise UserError(f"{self.name}: no version or alias {given!r}; there are: {known}.")

    def move(self, alias: str, number: int) -> None:
        """Point `alias` to a version, in one step: at no moment does it point nowhere."""
        self.client.set_registered_model_alias(self.name, alias, str(number))

    def tag(self, number: int, tags: Mapping[str, str]) -> None:
        """Write tags on a version."""
        for key, value in tags.items():
            self.client.set_model_version_tag(self.name, str(number), key, value)

    @contextmanager
    def artifacts(self, version: Version, folder: str) -> Iterator[Path]:
        """A copy of a folder of the artifacts of the version's training run, until the context ends.

        Raises UserError where the run has no such folder.
        """
        with tempfile.TemporaryDirectory() as scratch:
            try:
                path = Path(self.client.download_artifacts(version.run_id, folder, scratch))
            except store_errors():
                raise UserError(
                    f"{self.name} version {version.number}: its run {version.run_id} has no {folder!r} in "
                    f"{tracking_uri()}; run `vit-vs-cnn sync` if the store was away when it was made."
                ) from None
            yield path


@contextmanager
def readable_store_errors(command: str) -> Iterator[None]:
    """Trouble with the store as one sentence that says what to do when it is back."""
    try:
        yield
    except store_errors() as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TransientError(
            f"the registry at {tracking_uri()} cannot be used ({reason}); when it is back, run `vit-vs-cnn sync` and "
            f"then {command}."
        ) from None


def _version(entity: "ModelVersion", aliases: Mapping[str, int]) -> Version:
    number = int(entity.version)
    # A searched version comes without its aliases.
    held = tuple(sorted(alias for alias, holder in aliases.items() if holder == number))
    description = entity.description or ""
    return Version(number, entity.run_id or "", entity.creation_timestamp, held, dict(entity.tags), description)


def resolve_model_name(given: str | None, data_name: str | None) -> str:
    """The registered model that `given` means: its name, or that of its data set.

    Without it, the model of the data set `data_name` where the store has one, else the only one there is. Raises
    UserError with the names that there are where none or more than one is meant, TransientError where the store cannot
    be reached.
    """
    client = open_client()
    try:
        names = sorted(str(model.name) for model in client.search_registered_models(max_results=1000))
    except store_errors() as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TransientError(f"the registry at {tracking_uri()} cannot be reached ({reason}).") from None
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
