"""A run as the stages see it: record params, metrics, artifacts; the store gets them when it is there."""

import json
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import RUN_FILE
from vit_vs_cnn.data.dataset import DatasetInfo, SplitName
from vit_vs_cnn.tracking.lineage import lineage_tags, write_lineage
from vit_vs_cnn.tracking.outbox import Header, Outbox, now_ms, open_outbox, pending_outboxes
from vit_vs_cnn.tracking.store import open_client, send, store_errors, tracking_uri

_SECONDS_BETWEEN_SENDS = 5.0
_SECONDS_AFTER_A_FAILURE = 60.0


RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


class RunRef(BaseModel):
    """run.json: the MLflow run that made a stage's outputs.

    `run_id` is None where the store was away when the stage ended; the run then carries `key` as a tag.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    run_id: str | None
    experiment: str
    name: str


class TrackedRun:
    """A context manager; leaving it by an exception ends the run as FAILED (KILLED for Ctrl-C)."""

    def __init__(self, journal: Outbox) -> None:
        self._journal = journal
        self._client: Any = None
        self._next_send = time.monotonic() + _SECONDS_BETWEEN_SENDS
        self._failure: Exception | None = None
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._journal.header.own:
            self._journal.append("added")
        elif not self._ended:
            status: RunStatus = "FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED"
            if error is not None:
                self.set_tags({"failure": str(error)[:500] or kind.__name__ if kind else ""})
            self.end(status)
        self.send()
        if self._failure is None:
            self._journal.remove()
        else:
            self._journal.close()
            print(
                f"warning: the tracking store {tracking_uri()} could not be written "
                f"({_first_line(self._failure)}); nothing is lost, `vit-vs-cnn sync` sends it later.",
                file=sys.stderr,
            )

    def end(self, status: RunStatus) -> None:
        """Say how the run ended, where that is not how the context manager is left."""
        self._journal.append("finish", status=status)
        self._ended = True

    def log_params(self, values: Mapping[str, object]) -> None:
        """Record parameters, nested mappings as dotted names."""
        self._journal.append("params", values=flatten(values))

    def log_metrics(
        self, values: Mapping[str, float], step: int = 0, dataset: tuple[DatasetInfo, SplitName] | None = None
    ) -> None:
        """Record metrics; `dataset` links them to the split they were measured on and to the run's logged model."""
        link = {"dataset_name": _split_name(*dataset), "dataset_digest": _digest(*dataset)} if dataset else None
        finite = {key: float(value) for key, value in values.items()}
        self._journal.append("metrics", values=finite, step=step, dataset=link)
        self._send_now_and_then()

    def set_tags(self, values: Mapping[str, str]) -> None:
        """Record tags."""
        self._journal.append("tags", values=dict(values))

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Record a file or the contents of a folder under `folder` of the run's artifacts."""
        self._journal.append("artifact", place=self._journal.keep_file(path), folder=folder)

    def log_dataset(self, info: DatasetInfo, split: SplitName, context: str) -> None:
        """Record that the run used a split of the data, as MLflow's dataset input."""
        source = json.dumps({"name": info.name, "source": info.source, "description": info.description})
        profile = json.dumps({"images": info.splits[split].images, "image_size": info.image_size})
        name, digest = _split_name(info, split), _digest(info, split)
        self._journal.append("dataset", name=name, digest=digest, source=source, profile=profile, context=context)

    def log_model(
        self, folder: Path, name: str, kind: str, params: Mapping[str, object], tags: Mapping[str, str], step: int
    ) -> None:
        """Record the MLflow model in `folder` as the run's logged model."""
        flat = {key: str(value) for key, value in params.items()}
        place = self._journal.keep_file(folder)
        self._journal.append("model", place=place, name=name, type=kind, params=flat, tags=dict(tags), step=step)

    def send(self) -> None:
        """Bring the store up to date now; if it is away the records wait."""
        try:
            self._client = self._client or open_client()
            send(self._journal, self._client)
        except store_errors() as error:
            self._failure = error
            self._next_send = time.monotonic() + _SECONDS_AFTER_A_FAILURE
        else:
            self._failure = None
            self._next_send = time.monotonic() + _SECONDS_BETWEEN_SENDS

    def write_ref(self, folder: Path) -> None:
        """Write run.json into `folder`, so that what comes later finds this run."""
        header = self._journal.header
        ref = RunRef(key=header.key, run_id=self._journal.sent.run_id, experiment=header.experiment, name=header.name)
        (folder / RUN_FILE).write_text(ref.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def _send_now_and_then(self) -> None:
        if time.monotonic() >= self._next_send:
            self.send()


def start_run(settings: Settings, stage: str, contestant: str | None = None, key: str | None = None) -> TrackedRun:
    """A new run of `stage`, or with the `key` of a killed one the same run again."""
    name = f"{stage}-{contestant}" if contestant else stage
    fresh = Header(key or uuid.uuid4().hex, settings.data.name, name, now_ms(), own=True)
    journal = open_outbox(fresh.key, fresh)
    run = TrackedRun(journal)
    tags = {"stage": stage, **({"contestant": contestant} if contestant else {})}
    run.set_tags(lineage_tags() | tags)
    with tempfile.TemporaryDirectory() as scratch:
        lineage = Path(scratch) / "lineage"
        write_lineage(lineage)
        run.log_artifact(lineage, "lineage")
    run.send()
    return run


def start_part(settings: Settings, stage: str, contestant: str, part: str, key: str, whole: str) -> TrackedRun:
    """A run that is part of the one with the key `whole`, such as a trial of a study; its lineage is that one's."""
    header = Header(key, settings.data.name, f"{stage}-{contestant}-{part}", now_ms(), own=True, parent=whole)
    run = TrackedRun(open_outbox(key, header))
    run.set_tags(lineage_tags() | {"stage": stage, "contestant": contestant})
    run.send()
    return run


def add_to_run(ref: RunRef, stage: str) -> TrackedRun:
    """Go on with the run that another stage made and ended: what is recorded now is added to it."""
    header = Header(ref.key, ref.experiment, ref.name, now_ms(), own=False)
    return TrackedRun(open_outbox(f"{ref.key}-{stage}-{uuid.uuid4().hex[:8]}", header))


def read_ref(folder: Path) -> RunRef:
    """The run that made the outputs in `folder`. Raises UserError where run.json is missing or damaged."""
    path = folder / RUN_FILE
    try:
        return RunRef.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        raise UserError(f"{path}: missing or not written by this version; run the stage that makes it again.") from None


def sync() -> tuple[int, int]:
    """Send what is left of earlier runs: the number of journals sent, and of those still waiting.

    A run whose process died before its end is ended as KILLED. Raises UserError where the store is still away.
    """
    client, sent, failures = open_client(), 0, []
    for journal in pending_outboxes():
        if journal.header.own and not journal.is_finished():
            journal.append("died")
        try:
            send(journal, client)
        except store_errors() as error:
            failures.append(error)
            journal.close()
        else:
            journal.remove()
            sent += 1
    if failures and not sent:
        raise UserError(
            f"the tracking store {tracking_uri()} still cannot be written ({_first_line(failures[0])}); "
            f"{len(failures)} runs stay in .vit-vs-cnn/unsent, nothing is lost."
        )
    return sent, len(failures)


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested mappings as one mapping of dotted names to texts."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def _split_name(info: DatasetInfo, split: SplitName) -> str:
    return f"{info.name}-{split}"


def _digest(info: DatasetInfo, split: SplitName) -> str:
    return info.splits[split].digest[:32]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
