"""What a study will run: its points as runs of the pipeline, how many images each has, how long it will take."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.child_process import call_in_child
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.records import Record, digest_of
from vit_vs_cnn.data.dataset import PREPARED_SPLITS
from vit_vs_cnn.data.prepare import open_source
from vit_vs_cnn.data.split import assign_splits, content_digests, refuse_empty_subset, subset_size
from vit_vs_cnn.studies.budget import computed_images, epochs_of_equal_steps, longer_training, whole_epochs
from vit_vs_cnn.studies.settings import (
    IMAGES,
    SECONDS,
    SPLIT_SEED,
    STUDIES,
    StudySettings,
    Values,
    point_text,
    read_study,
    settings_at,
)

# A stage loads PyTorch and tracks its run before and after what it computes.
_SECONDS_PER_STAGE = 5.0
_LONGEST_NAME = 80
_REMEDY = "start the study again"
# The settings that decide what the stages up to the evaluation measure.
MEASURED_SETTINGS = {"seeds", "select_by", "data", "recipe", "train", "tune", "evaluate", "models"}

Counts = dict[str, tuple[int, ...]]


class PlannedRun(Record):
    """A run of the pipeline: the point of the study, the contestants that it trains, and what it is started with.

    `settings` is a digest of what decides its results, `trials` are those of its tuning. `steps_share` is the part that
    `max_epochs` leaves of the optimizer steps that all images have, `seconds` the estimate for all its stages on one
    machine.
    """

    name: str
    values: Values
    contestants: tuple[str, ...]
    overrides: tuple[str, ...]
    settings: str
    seeds: tuple[int, ...]
    epochs: int
    trials: int
    steps_share: float
    train_images: int
    val_images: int
    seconds: float


class Plan(Record):
    """plan.json: the runs of a study and what they were planned from.

    `given` is what starts the study again, its name or its file; `margin` the difference within which contestants are
    practically equal. `classes` is how many there are, `images` how many images train has without a limit,
    `seconds_per_image` what an epoch takes for each training image, by contestant.
    """

    study: str
    given: str
    digest: str
    preset: str
    data_name: str
    contestants: tuple[str, ...]
    axes: dict[str, list[bool | int | float | str | None]]
    same: str
    confidence: float
    margin: float
    classes: int
    images: int
    seconds_per_image: dict[str, float]
    runs: tuple[PlannedRun, ...]

    @property
    def seconds(self) -> float:
        """The estimate for all runs, one after the other."""
        return sum(run.seconds for run in self.runs)


class _Speeds(Record):
    """speeds.json: measured seconds per image, by what was measured: a budget in seconds needs them to stay."""

    seconds_per_image: dict[str, float] = Field(default_factory=dict)


def plan_study(path: Path, root: Path, say: Callable[[str], None] = lambda _: None) -> Plan:
    """Plan the study in the file `path`, and write plan.json into its folder.

    It reads the source of images to count them, and trains every contestant for a few steps. Raises UserError with the
    path of what is wrong, before anything runs.
    """
    study, folder = read_study(path, root), study_folder(root, path.stem)
    folder.mkdir(parents=True, exist_ok=True)
    planner, whole = _Planner(study, path, root, say), settings_at(study, {}, root)
    _refuse_given_test(path, study, whole.data)
    runs = [run for point in study.points() for run in planner.runs_at(point)]
    _refuse_same_training(path, runs)
    names = [run.name for run in runs]
    if len(set(names)) < len(names) or max(map(len, names)) > _LONGEST_NAME:
        runs = [run.model_copy(update={"name": _digest_name(path.stem, run)}) for run in runs]
    plan = Plan(
        study=path.stem,
        given=path.stem if path.parent == root / STUDIES else str(path),
        digest=study.digest,
        preset=study.preset or "",
        data_name=whole.data.name,
        contestants=tuple(whole.models),
        axes=study.axes,
        same=study.same,
        confidence=whole.evaluate.confidence,
        margin=whole.compare.margin,
        classes=planner.classes_of(whole.data),
        images=max(planner.train_images.values()),
        seconds_per_image=planner.speeds_of(whole),
        runs=tuple(runs),
    )
    plan.write(folder / "plan.json")
    return plan


def study_folder(root: Path, name: str) -> Path:
    """Where a study's results are, in the main working tree; git and DVC ignore it."""
    return root / "reports" / "studies" / name


def read_plan(folder: Path) -> Plan:
    """Read plan.json. Raises UserError where the study was never started."""
    if not (folder / "plan.json").is_file():
        raise UserError(f"study {folder.name} has not been started here; `vit-vs-cnn study` starts it.")
    return Plan.read(folder / "plan.json", _REMEDY)


def count_images(data: DataSettings) -> Counts:
    """The images of each class in each split, without `train_fraction`; reads them where splits have to be carved."""
    source = open_source(data)
    splits = assign_splits(source, content_digests(source), data) if source.missing else source.splits
    return {
        split: tuple(np.bincount(source.labels[splits == code], minlength=len(source.classes)).tolist())
        for code, split in enumerate(PREPARED_SPLITS)
    }


class _Planner:
    """Counts images and measures speeds once for all the points that share them."""

    def __init__(self, study: StudySettings, path: Path, root: Path, say: Callable[[str], None]) -> None:
        self._study, self._path, self._root, self._say = study, path, root, say
        self._counts: dict[str, Counts] = {}
        self._speeds_file = study_folder(root, path.stem) / "speeds.json"
        self._speeds = dict(
            _Speeds.read(self._speeds_file, _REMEDY).seconds_per_image if self._speeds_file.is_file() else {}
        )
        self.train_images: dict[str, int] = {}

    def runs_at(self, point: Values) -> list[PlannedRun]:
        """The runs of a point: one, or one for each contestant where the epochs differ or the budget is a time."""
        settings, limit = settings_at(self._study, point, self._root), None
        wanted = dict.fromkeys(settings.models, settings.train.epochs)
        if SECONDS in point:
            wanted = self._epochs_within(point, settings)
        elif IMAGES in point and self._study.same == "steps":
            whole, train = sum(self._counts_of(settings.data)["train"]), self._images(settings.data)[0]
            wanted, limit = epochs_of_equal_steps(settings, whole, train), self._study.max_epochs
        apart = SECONDS in point or len(set(wanted.values())) > 1
        runs = []
        for contestants in ((name,) for name in wanted) if apart else (tuple(wanted),):
            epochs = min(wanted[contestants[0]], limit or wanted[contestants[0]])
            runs.append(self._run(point, settings, epochs, epochs / wanted[contestants[0]], contestants))
        return runs

    def speeds_of(self, settings: Settings) -> dict[str, float]:
        """Seconds per training image of each contestant, measured here where they were not before."""
        from vit_vs_cnn.training.throughput import seconds_per_image

        speeds = {}
        classes = tuple(map(str, range(self.classes_of(settings.data))))
        for contestant, model in settings.models.items():
            machine = settings.train.model_dump(exclude={"epochs", "patience", "refit"})
            facts = (contestant, model, settings.data.image_size, settings.data.channels, len(classes), machine)
            key = digest_of(repr(facts).encode())
            if key not in self._speeds:
                self._speeds[key] = call_in_child(seconds_per_image, settings, contestant, classes)
                self._say(f"{contestant}: {1 / self._speeds[key]:,.0f} images per second of training here")
                _Speeds(seconds_per_image=self._speeds).write(self._speeds_file)
            speeds[contestant] = self._speeds[key]
        return speeds

    def _epochs_within(self, point: Values, settings: Settings) -> dict[str, int]:
        """How many epochs of each contestant a budget in seconds has, refits included."""
        try:
            return whole_epochs(float(point[SECONDS] or 0), self._seconds_per_epoch(settings), settings.train.refit)
        except UserError as error:
            raise UserError(f"{self._path}: {point_text(point)}: {error}") from None

    def _seconds_per_epoch(self, settings: Settings) -> dict[str, float]:
        """What an epoch of each contestant takes, validation aside."""
        train, speeds = self._images(settings.data)[0], self.speeds_of(settings)
        batches = {name: model.recipe.batch_size for name, model in settings.models.items()}
        return {name: computed_images(train, batch) * speeds[name] for name, batch in batches.items()}

    def classes_of(self, data: DataSettings) -> int:
        """How many classes there are."""
        return len(self._counts_of(data)["train"])

    def _run(
        self, point: Values, settings: Settings, epochs: int, steps_share: float, contestants: tuple[str, ...]
    ) -> PlannedRun:
        train, val = self._images(settings.data)
        more: Values = {}
        if epochs != settings.train.epochs:
            more = longer_training(settings, epochs)
        more |= {f"models.{other}": None for other in settings.models if other not in contestants}
        apart = SECONDS in point or len(contestants) < len(settings.models)
        parts = [self._path.stem, *(_readable(axis, value) for axis, value in point.items())]
        seconds, tune = self._seconds_per_epoch(settings), settings_at(self._study, point, self._root, more).tune
        trained = (
            epochs * (1 + settings.train.refit) * len(settings.seeds)
            + tune.trials * (tune.epochs or epochs) * tune.data_fraction
        )
        stages = 1 + len(contestants) * (1 + 2 * len(settings.seeds))
        return PlannedRun(
            name="-".join([*parts, *(contestants if apart else ())]),
            values=point,
            contestants=contestants,
            overrides=self._study.overrides_at(point, more),
            settings=digest_of(settings.model_dump_json(include=MEASURED_SETTINGS).encode()),
            seeds=tuple(settings.seeds),
            epochs=epochs,
            trials=tune.trials,
            steps_share=steps_share,
            train_images=train,
            val_images=val,
            seconds=sum(trained * seconds[name] for name in contestants) + stages * _SECONDS_PER_STAGE,
        )

    def _counts_of(self, data: DataSettings) -> Counts:
        key = repr(data.model_copy(update={"train_fraction": 1.0}))
        if key not in self._counts:
            self._counts[key] = count_images(data)
            self.train_images[key] = sum(self._counts[key]["train"])
        return self._counts[key]

    def _images(self, data: DataSettings) -> tuple[int, int]:
        """How many images train and val have at a point."""
        counts, fraction = self._counts_of(data), data.train_fraction
        if fraction == 1.0:
            return sum(counts["train"]), sum(counts["val"])
        try:
            refuse_empty_subset(sum(counts["train"]), len(counts["train"]), data)
        except UserError as error:
            raise UserError(f"{self._path}: axes.images: {fraction:g}: {error}") from None
        return (
            sum(subset_size(count, fraction) for count in counts["train"] if count),
            sum(subset_size(count, fraction) for count in counts["val"] if count),
        )


def _refuse_given_test(path: Path, study: StudySettings, data: DataSettings) -> None:
    """Raise UserError where splits are to be repeated though the data set has one test split, the same for all."""
    if SPLIT_SEED in study.axes and "test" not in open_source(data).missing:
        raise UserError(
            f"{path}: axes.{SPLIT_SEED}: {data.name} comes with its own test images, which would be the same in every "
            "split: vary seeds instead, or give the images without a split."
        )


def _refuse_same_training(path: Path, runs: Sequence[PlannedRun]) -> None:
    """Raise UserError where two points would be one training, since a limit leaves both as many epochs."""
    found: dict[tuple[str, ...], PlannedRun] = {}
    for run in runs:
        other = found.setdefault(run.overrides, run)
        if other is not run:
            limit = "max_epochs" if run.steps_share < 1 else "the budget"
            raise UserError(
                f"{path}: {point_text(other.values)} and {point_text(run.values)} are the same training of "
                f"{run.epochs} epochs: raise {limit}, or drop one of them."
            )


def _readable(axis: str, value: object) -> str:
    """A value of an axis in the name of a run, which is the name of a git reference too."""
    text = f"{value:g}" if isinstance(value, float) else str(value).lower()
    return re.sub(r"[^A-Za-z0-9.-]+|\.\.+|\.$", "_", f"{axis.rpartition('.')[2]}-{text}")


def _digest_name(study: str, run: PlannedRun) -> str:
    facts: Mapping[str, object] = {"values": run.values, "contestants": run.contestants}
    return f"{study}-{digest_of(repr(facts).encode())[:10]}"
