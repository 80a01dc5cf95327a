"""A run as the stages see it: parameters, metrics, tags, artifacts, which the store gets as soon as it is reachable."""

import json
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

import psutil

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.colours import contestant_colour
from vit_vs_cnn.core.console import markdown_text
from vit_vs_cnn.core.errors import UserError, without_password
from vit_vs_cnn.core.paths import RUN_FILE
from vit_vs_cnn.data.dataset import DatasetInfo, SplitName
from vit_vs_cnn.tracking.delivery import Delivery, is_deferred, undelivered
from vit_vs_cnn.tracking.lineage import lineage_tags, write_lineage
from vit_vs_cnn.tracking.names import flatten_params
from vit_vs_cnn.tracking.outbox import Header, Outbox, RunRef, new_event, open_outbox
from vit_vs_cnn.tracking.views import NOTE_TAG

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


class TrackedRun:
    """A context manager; left by an exception, the run ends as FAILED (KILLED for Ctrl-C), otherwise as FINISHED."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._status: RunStatus | None = None
        self._delivery = None if outbox.header.deferred else Delivery()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._outbox.header.creates_run:
            if error is not None and self._status is None:
                self._status = "FAILED" if isinstance(error, Exception) else "KILLED"
                self.set_tags({"failure": without_password(str(error))[:500] or type(error).__name__})
            self._outbox.append(new_event("finish", status=self._status or "FINISHED"))
        if self._delivery is None:
            self._outbox.close()
        elif failure := self._delivery.finish(self._outbox):
            print(f"warning: {undelivered(failure)}", file=sys.stderr)
        else:
            with suppress(UserError):  # an outbox of another version, of which `sync` says more
                # The store is there: what killed processes left, and what it could not take before, need no `sync`.
                self._delivery.finish_all()

    def end(self, status: RunStatus) -> None:
        """Set how the run ends, however the context is left."""
        self._status = status

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters; nested ones get dotted names."""
        self._record("params", values=flatten_params(params))

    def log_metrics(self, values: Mapping[str, float], step: int = 0, dataset: Mapping[str, str] | None = None) -> None:
        """Record metrics; a dataset that was logged links them to it and to the run's logged model."""
        self._record("metrics", values={key: float(value) for key, value in values.items()}, step=step, dataset=dataset)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Record tags, their values written like those of parameters."""
        self._record("tags", values=flatten_params(tags))

    def describe(self, *paragraphs: str) -> None:
        """Record what the run found in words; MLflow shows it as the run's description."""
        self._record("tags", values={NOTE_TAG: "\n\n".join(map(markdown_text, paragraphs))})

    def describe_experiment(self, info: DatasetInfo, compared: Sequence[RunRef] = ()) -> None:
        """Record what the experiment is about, and the views of its runs: of all, and of trainings to be compared."""
        about = f"{info.description}; {len(info.classes)} classes."
        images = sum(part.images for part in info.splits.values())
        tags = {"data.source": info.source, "classes": len(info.classes), "images": images}
        keys = [training.key for training in compared]
        self._record("experiment", about=markdown_text(about), tags=flatten_params(tags), compared=keys)

    def log_dataset(self, info: DatasetInfo, split: SplitName, context: str) -> dict[str, str]:
        """Record that the run used a split of the data; what this returns links metrics to it."""
        dataset = {
            "name": f"{info.name}-{split}",
            "digest": info.splits[split].digest[:32],
            "source_type": "local",
            "source": json.dumps({"name": info.name, "source": info.source, "description": info.description}),
            "profile": json.dumps({"images": info.splits[split].images, "image_size": info.image_size}),
        }
        self._record("dataset", dataset=dataset, context=context)
        return {"dataset_name": dataset["name"], "dataset_digest": dataset["digest"]}

    def log_training_data(self, info: DatasetInfo) -> None:
        """Record the data of a training: its digest, and the splits train and val."""
        self.set_tags({"data.digest": info.digest})
        self.log_dataset(info, "train", "training")
        self.log_dataset(info, "val", "validation")

    def set_parent(self, key: str) -> None:
        """Make this run a child of the run with this key."""
        self._record("parent", key=key)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Record a file or the contents of a folder under `folder` of the run's artifacts."""
        self._record_files("artifact", path, folder=folder)

    def log_images(self, folder: Path, key: str) -> None:
        """Record the images <step>.png of a folder, which MLflow's image grid shows beside those of other runs."""
        self._record_files("images", folder, key=key)

    def log_model(
        self, path: Path, name: str, kind: str, params: Mapping[str, object], tags: Mapping[str, str], step: int
    ) -> None:
        """Record the MLflow model in the folder `path` as the run's logged model."""
        model = {"name": name, "model_type": kind, "params": flatten_params(params), "tags": dict(tags)}
        self._record_files("model", path, model=model, step=step)

    def write_ref(self, folder: Path) -> None:
        """Write run.json into `folder`, so that later stages find this run."""
        self._outbox.refresh()
        ref = self._outbox.header.model_dump(include=set(RunRef.model_fields))
        RunRef(**ref).write(folder / RUN_FILE)

    def _record(self, kind: str, **fields: Any) -> None:
        self._outbox.append(new_event(kind, **fields))
        if self._delivery is not None:
            self._delivery.deliver(self._outbox)

    def _record_files(self, kind: str, path: Path, **fields: Any) -> None:
        # A stage's next run deletes its outputs: what is not uploaded from there now is copied.
        event = new_event(kind, path=str(path.resolve()), **fields)
        if self._delivery is None or not self._delivery.deliver(self._outbox, event):
            self._outbox.append(event | {"path": self._outbox.keep(path)})


def start_run(
    settings: Settings,
    stage: str,
    contestant: str | None = None,
    key: str | None = None,
    *,
    part: str | None = None,
    parent: str | None = None,
) -> TrackedRun:
    """Start a run of `stage`, or resume the one with this key.

    A `part`, such as a seed or a trial of a study, adds to its name. With the key of a `parent` it is the child of that
    run, which has the lineage.
    """
    tags = {"stage": stage} | ({"contestant": contestant} if contestant else {})
    name, key = "-".join([*tags.values(), *([part] if part else [])]), key or uuid.uuid4().hex
    header = Header(
        key=key,
        experiment=settings.data.name,
        name=name,
        creates_run=True,
        deferred=is_deferred(),
        parent=parent,
    )
    run = TrackedRun(open_outbox(key, header))
    # MLflow's charts draw a run in the colour of this tag.
    colour = {"mlflow.runColor": contestant_colour(settings.models, contestant)} if contestant else {}
    run.set_tags(lineage_tags() | tags | colour)
    if parent is None:
        with tempfile.TemporaryDirectory() as scratch:
            write_lineage(Path(scratch) / "lineage")
            run.log_artifact(Path(scratch) / "lineage", "lineage")
    return run


def add_to_run(folder: Path) -> TrackedRun:
    """Open the run that made the outputs in `folder`, to add what a later stage found."""
    ref = read_ref(folder)
    header = Header(key=ref.key, experiment=ref.experiment, name=ref.name, creates_run=False, deferred=is_deferred())
    return TrackedRun(open_outbox(f"{ref.key}-{uuid.uuid4().hex}", header))


def read_ref(folder: Path) -> RunRef:
    """The run that made the outputs in `folder`. Raises UserError where run.json is missing or not valid."""
    return RunRef.read(folder / RUN_FILE, f"`dvc checkout --force {folder}` restores it, or run its stage again")


def system_metrics() -> dict[str, float]:
    """The load since the last call, in per cent and megabytes, under the names of MLflow's own monitor."""
    import torch

    memory = psutil.virtual_memory()
    values = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_megabytes": psutil.Process().memory_info().rss / 1e6,
    }
    if torch.cuda.is_available():
        values["system/gpu_0_memory_usage_megabytes"] = torch.cuda.max_memory_allocated() / 1e6
        with suppress(ModuleNotFoundError, RuntimeError):  # without NVIDIA's management library
            values["system/gpu_0_utilization_percentage"] = float(torch.cuda.utilization())
    return values
