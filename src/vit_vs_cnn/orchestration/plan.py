"""What a run will do: which stages run and why, which are cached, about how long it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vit_vs_cnn.config.load import changed
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import duration, printable
from vit_vs_cnn.core.devices import accelerators
from vit_vs_cnn.orchestration.artifacts import is_registered_elsewhere
from vit_vs_cnn.orchestration.dag import Stage, check_timeouts, choose_stages, read_dag, resolve_names
from vit_vs_cnn.orchestration.disk_use import DiskUse, disk_use
from vit_vs_cnn.orchestration.durations import recorded_duration, usual_duration
from vit_vs_cnn.orchestration.image_counts import Images, known_images
from vit_vs_cnn.orchestration.request import NetworkSize, Request, check_models
from vit_vs_cnn.orchestration.workspace import PipelineRun

_MOST_REASONS = 3
# Beyond that a person may want something smaller.
_LONG_SECONDS = 3 * 3600.0
_SHORT_PRESETS = ("demo", "cpu")
# Where it is not known how many images there are: what takes long with these takes long with any.
_FEW_IMAGES = (1_000, 100, 200)


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a run: why it runs (nothing where it is cached), whether that is by force, and about how long.

    `restored`: DVC's cache has what another run has made with the same inputs. `seconds` is None where the number of
    images is not known yet.
    """

    stage: Stage
    reasons: tuple[str, ...]
    forced: bool
    restored: bool
    seconds: float | None

    @property
    def is_cached(self) -> bool:
        """Whether nothing is to be done."""
        return not self.reasons

    @property
    def runs(self) -> bool:
        """Whether its command is to be run."""
        return not self.is_cached and not self.restored


@dataclass(frozen=True)
class RunPlan:
    """The stages of a run, each after those that it needs, the disk, and how the times change with less to do."""

    stages: tuple[PlannedStage, ...]
    disk: DiskUse
    advice: tuple[str, ...]

    @property
    def is_done(self) -> bool:
        """Whether nothing has to run."""
        return all(planned.is_cached for planned in self.stages)

    def record(self) -> dict[str, object]:
        """The plan as plain values: its stages in order, those that run with reasons and about how long, and advice."""
        stages = [
            {"stage": planned.stage.name, "cached": not planned.runs, "reasons": planned.reasons}
            | ({"seconds": planned.seconds} if planned.runs else {})
            for planned in self.stages
        ]
        total = _total([planned for planned in self.stages if planned.runs])
        disk = {"bytes": self.disk.needed, "bytes_free": self.disk.free}
        return {"stages": stages, "seconds": total, **disk, "advice": self.advice}

    def lines(self) -> list[str]:
        """The plan for people: a line in sum, a line for each stage that runs, one for all others, and advice."""
        running = [planned for planned in self.stages if planned.runs]
        cached = [planned.stage.name for planned in self.stages if planned.is_cached]
        restored = [planned.stage.name for planned in self.stages if planned.restored]
        if not running:
            return [f"nothing to run: all {len(self.stages)} stages are cached"]
        lines = [f"{len(running)} of {len(self.stages)} stages run{_about(_total(running))}"]
        for planned in running:
            seconds = "" if planned.seconds is None else f"about {duration(planned.seconds)}"
            lines.append(f"  {planned.stage.name:<18}  {seconds:<13}  {_shortened(planned.reasons)}".rstrip())
        lines += self.disk.lines()
        if restored:
            lines.append(f"  cached by another run: {', '.join(restored)}")
        if cached:
            lines.append(f"  cached: {', '.join(cached)}")
        return [printable(line) for line in (*lines, *self.advice)]


def plan_run(run: PipelineRun, request: Request) -> RunPlan:
    """Plan what `request` asks for in the open `run`.

    Raises UserError for a stage that there is not, a bad timeout, and where DVC cannot read the pipeline.
    """
    dag, settings = read_dag(run.workspace), run.settings
    forced, chosen = resolve_names(dag, request.force), choose_stages(dag, request.stages)
    check_timeouts(dag, settings.flow)
    elsewhere = is_registered_elsewhere(run.workspace)
    sizes, images = check_models(settings), known_images(settings.data, run.workspace)
    planned: dict[str, PlannedStage] = {}
    for stage in chosen:
        is_forced = stage.name in forced or (elsewhere and stage.kind == "register")
        reasons = list(stage.changes)
        if is_forced and not reasons:
            reasons.append("it is forced" if stage.name in forced else "its versions are in another store")
        runs = [name for name in stage.needs if planned[name].runs]
        if not reasons:
            reasons += [f"{name} runs" for name in runs]
            reasons += [f"{name} is restored" for name in stage.needs if planned[name].restored]
        restored = bool(reasons) and stage.restorable and not is_forced and not runs
        seconds = recorded_duration(stage, settings.data)
        if seconds is None:
            seconds = usual_duration(stage, settings, sizes, images)
        planned[stage.name] = PlannedStage(stage, tuple(reasons), is_forced, restored, seconds)
    stages = tuple(planned.values())
    running = [planned.stage for planned in stages if planned.runs]
    disk = disk_use(running, settings.data.image_size, sizes, images, run.workspace)
    return RunPlan(stages, disk, tuple(_advice(stages, settings, request, sizes, images)))


def _advice(
    stages: Sequence[PlannedStage],
    settings: Settings,
    request: Request,
    sizes: Mapping[str, NetworkSize],
    images: Images | None,
) -> list[str]:
    """What would be shorter, where the run takes hours, with however few images."""
    running = [planned for planned in stages if planned.runs]

    def with_changes(changes: Mapping[str, object]) -> float:
        smaller = changed(settings, changes)
        kept = [planned for planned in running if not _is_of_dropped_seed(planned.stage, settings, smaller)]
        return sum(usual_duration(planned.stage, smaller, sizes, images or _FEW_IMAGES) or 0.0 for planned in kept)

    def about(changes: Mapping[str, object]) -> str:
        return "" if images is None else f", about {duration(with_changes(changes))}"

    total = _total(running)
    if (with_changes({}) if total is None else total) < _LONG_SECONDS:
        return []
    choices = []
    if not accelerators() and request.preset not in _SHORT_PRESETS:
        choices.append("--preset cpu, small networks for CPUs")
    if len(settings.seeds) > 1:
        fewer = {"seeds": [settings.seed]}
        choices.append(f"--set 'seeds=[{settings.seed}]', one training of each{about(fewer)}")
    if settings.train.epochs > 1:
        epochs = max(1, settings.train.epochs // 5)
        choices.append(f"--set train.epochs={epochs}{about({'train': {'epochs': epochs}})}")
    return ["too long? Choose for example:", *(f"  {choice}" for choice in choices)]


def _is_of_dropped_seed(stage: Stage, settings: Settings, smaller: Settings) -> bool:
    seeds = set(settings.seeds) - set(smaller.seeds)
    return stage.kind in {"train", "evaluate"} and any(stage.name.endswith(f"-{seed}") for seed in seeds)


def _total(planned: Sequence[PlannedStage]) -> float | None:
    """The seconds of all, None where those of one are not known."""
    known = [one.seconds for one in planned if one.seconds is not None]
    return sum(known) if len(known) == len(planned) else None


def _about(seconds: float | None) -> str:
    return ", how long is known when the images are read" if seconds is None else f", about {duration(seconds)}"


def _shortened(reasons: Sequence[str]) -> str:
    more = len(reasons) - _MOST_REASONS
    return ", ".join(reasons[:_MOST_REASONS]) + (f" and {more} more" if more > 0 else "")
