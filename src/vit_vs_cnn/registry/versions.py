"""The model registry: one registered model per data set, whose versions are the trained contestants."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.core.console import points
from vit_vs_cnn.core.errors import TransientError, UserError, first_line
from vit_vs_cnn.tracking.outbox import RunRef
from vit_vs_cnn.tracking.store import experiment, find_run, model_of_run, open_client, store_errors, tracking_uri

CHALLENGER = "challenger"
CHAMPION = "champion"
# The tag of a version that identifies the test images it was evaluated on.
TEST_DIGEST = "data.test_digest"
# The folder of a training run's artifacts with the digests of the images that it trained on.
TRAINING_IMAGES = "training_images"
# The column of MLflow's database holds no more.
_LONGEST_DESCRIPTION = 5000


@contextmanager
def registry_errors(remedy: str = "check MLFLOW_TRACKING_URI, and that its server runs") -> Iterator[None]:
    """Turn the errors of an unreachable store into a TransientError that ends in `remedy`; also a decorator."""
    try:
        yield
    except store_errors() as error:
        raise TransientError(
            f"the registry at {tracking_uri()} cannot be used ({first_line(error)}); {remedy}."
        ) from None


@dataclass(frozen=True, eq=False)
class Version:
    """A version of the registered model: its training run, aliases, tags and model card (Markdown)."""

    number: int
    run_id: str
    created_ms: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    card: str

    @property
    def contestant(self) -> str:
        """The contestant that was trained, a key of `models:`."""
        return self.tags.get("contestant", "?")

    @property
    def seed(self) -> int | None:
        """The seed that it was trained with; None of a version that was made when there was only one training."""
        return int(self.tags["seed"]) if "seed" in self.tags else None

    @property
    def replicate(self) -> str:
        """Which training of how many it is and what all reach on test, in words; empty where no tag says it."""
        seeds, mean, deviation = (self.metric(tag) for tag in ("seeds", "accuracy_mean", "accuracy_std"))
        if self.seed is None or seeds is None:
            return ""
        if mean is None or deviation is None:
            return f"seed {self.seed}, its only training"
        spread = f"mean {mean:.2%}, standard deviation {points(deviation, 2)} points"
        return f"seed {self.seed}, of {seeds} trainings the best by validation; all of them on test: {spread}"

    @property
    def test_digest(self) -> str:
        """What identifies the test images that it was evaluated on; of no other version where no tag says it."""
        return self.tags.get(TEST_DIGEST, self.run_id)

    def metric(self, tag: str) -> float | None:
        """The number in a tag, None where the version has no such tag."""
        return json.loads(self.tags[tag]) if tag in self.tags else None


class Registry:
    """The registered model `name` in the tracking store."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.client = open_client()

    def create(self) -> None:
        """Create the registered model where it does not exist."""
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            about = (
                f"Classifiers for {self.name.removesuffix('-classifier')}: a version for each contestant of each run. "
                "`champion` is the one in use, `challenger` the one that `vit-vs-cnn registry promote` judges."
            )
            self.client.create_registered_model(self.name, description=about)

    def add(self, contestant: str, training: RunRef, tags: Mapping[str, str], card: str) -> int:
        """Register the model that a training run logged and return its version; a known model keeps its version.

        Raises UserError where the store does not have the run.
        """
        experiment_id = experiment(self.client, training.experiment).experiment_id
        run_id = find_run(self.client, experiment_id, training.key)
        model_id = model_of_run(self.client, run_id) if run_id else None
        if run_id is None or model_id is None:
            stage = training.name.replace("-", "@", 1)
            raise UserError(
                f"{self.name}: the training run of {contestant} is not in {tracking_uri()}; run `vit-vs-cnn sync` if "
                f"the store was unreachable, or `dvc repro --force {stage}` if the run was deleted."
            )
        for known in self.client.search_model_versions(f"name = '{self.name}' and run_id = '{run_id}'"):
            return int(known.version)
        version = self.client.create_model_version(
            self.name,
            source=f"models:/{model_id}",
            run_id=run_id,
            model_id=model_id,
            tags={"contestant": contestant, **tags},
            description=card[:_LONGEST_DESCRIPTION],
        )
        return int(version.version)

    @registry_errors()
    def aliases(self) -> dict[str, int]:
        """The version that each alias points to."""
        aliases = self.client.get_registered_model(self.name).aliases
        return {alias: int(version) for alias, version in aliases.items()}

    @registry_errors()
    def versions(self) -> list[Version]:
        """All versions, the newest first."""
        targets = self.aliases()
        versions = [
            Version(
                number=int(found.version),
                run_id=found.run_id or "",
                created_ms=found.creation_timestamp,
                # MLflow's search returns versions without their aliases.
                aliases=tuple(sorted(alias for alias, target in targets.items() if target == int(found.version))),
                tags=dict(found.tags),
                card=found.description or "",
            )
            for found in self.client.search_model_versions(f"name = '{self.name}'")
        ]
        return sorted(versions, key=lambda version: -version.number)

    def version(self, given: str | int) -> Version:
        """The version with this number or alias. Raises UserError where there is none."""
        versions = self.versions()
        for version in versions:
            if str(given) == str(version.number) or given in version.aliases:
                return version
        numbers = [str(version.number) for version in reversed(versions)]
        known = ", ".join([*numbers, *(alias for version in versions for alias in version.aliases)]) or "none"
        raise UserError(f"{self.name} has no version or alias {str(given)!r}; there are: {known}.")

    def number_of(self, given: str) -> int:
        """The number of the version with this alias or number; of an alias it takes one request.

        Raises UserError where there is none.
        """
        return self.aliases().get(given) or self.version(given).number

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
                    f"{self.name} version {version.number}: its run {version.run_id} has no folder {folder!r} in "
                    f"{tracking_uri()}; run `vit-vs-cnn sync` if the store was unreachable when it was made."
                ) from None
            yield path

    @registry_errors()
    def trained_on(self, version: Version) -> NDArray[np.uint64] | None:
        """The digests of the images that the version was trained on; None of versions that recorded none."""
        if not self.client.list_artifacts(version.run_id, TRAINING_IMAGES):
            return None
        with self.artifacts(version, TRAINING_IMAGES) as folder:
            return np.concatenate([np.load(path) for path in sorted(folder.rglob("*.npy"))])


def registered_name(data_name: str) -> str:
    """The registered model of a data set."""
    return f"{data_name}-classifier"


@registry_errors()
def resolve_model_name(given: str | None, data_name: str | None) -> str:
    """The registered model that `given` means: its name, or that of its data set.

    Without it, the model of the data set `data_name` where the store has one, else the only model there is. Raises
    UserError with the names there are where it means none or several, TransientError where the store is unreachable.
    """
    names = sorted(str(model.name) for model in open_client().search_registered_models(max_results=1000))
    wanted = given or data_name or ""
    for name in (wanted, registered_name(wanted)):
        if name in names:
            return name
    if not names:
        raise UserError(f"{tracking_uri()} has no registered model: run `dvc repro register` first.")
    if given or len(names) > 1:
        has = f"has no registered model {wanted!r}" if wanted else "has several registered models"
        raise UserError(f"{tracking_uri()} {has}: name one of {', '.join(names)}.")
    return names[0]
