"""The pipeline as a Prefect flow: one task per stage that DVC names, in the order that DVC's DAG allows.

`prefect deployment run 'vit-vs-cnn/local' -p preset=demo` and `vit-vs-cnn run --preset demo` both run this flow.
"""

import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run, task_run
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import Task
from pydantic import Field

from vit_vs_cnn.config.load import preset_names
from vit_vs_cnn.config.schema import FlowSettings
from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.orchestration.accelerators import free_accelerators, slot_name, slots
from vit_vs_cnn.orchestration.artifacts import publish_results
from vit_vs_cnn.orchestration.dag import Stage, check_timeouts, choose_stages, read_dag, resolve_names, timeout_seconds
from vit_vs_cnn.orchestration.listener import StageListener
from vit_vs_cnn.orchestration.slots import ensure_slots
from vit_vs_cnn.orchestration.stage_process import Limits, Outcome, StageError, is_stopping, run_stage, stop_all
from vit_vs_cnn.orchestration.workspace import Request, Run, is_saved, open_run, run_environment, save_run

PROJECT = Path(__file__).resolve().parent.parent

Preset = Annotated[str, Field(json_schema_extra={"enum": ["", *preset_names(PROJECT)]})]
Override = Annotated[str, Field(pattern=r"^[^=\s]+=.*$")]
Name = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$")]

# A stage is a process of its own; its thread only waits.
THREADS: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=1_000)


def _flow_run_name() -> str:
    parameters: dict[str, Any] = flow_run.parameters
    given = parameters.get("name") or parameters.get("preset")
    return f"{given or 'params'}-{str(flow_run.id)[:4]}"


@flow(
    name="vit-vs-cnn",
    flow_run_name=_flow_run_name,
    description="ViT or CNN? Data, EDA, tuning, training, evaluation, explanation, comparison, registration.",
    task_runner=THREADS,
)
def pipeline(
    preset: Preset = "",
    overrides: list[Override] = [],  # noqa: B006 - Prefect copies it
    stages: list[str] = [],  # noqa: B006
    force: list[str] = [],  # noqa: B006
    name: Name = "",
    in_place: bool = False,
) -> State[Any]:
    """Run the stages of dvc.yaml; what DVC would skip is Cached, what needs a failed stage is NotRun.

    Args:
        preset: Lay presets/NAME.yaml over params.yaml. Empty: params.yaml as it is.
        overrides: Settings to change, each `key.path=value`, for example `train.epochs=3`.
        stages: Stages to run, with what they need; `train` is every `train@<model>`. Empty: all.
        force: Stages to run though nothing changed.
        name: Name of the run and of its DVC experiment; the same name continues it. Empty: made from the parameters.
        in_place: Run params.yaml as it stands in the project folder, not in a workspace of its own.
    """
    request = Request(preset or None, tuple(overrides), name or None, tuple(stages), tuple(force), in_place)
    try:
        with open_run(request, str(flow_run.id)) as run:
            return _run_stages(run, request)
    except (UserError, RunError) as error:
        return Failed(message=str(error), data=error)


@dataclass
class Ended:
    """How the stages of a run have ended so far; a stage in neither has not run."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: dict[str, StageError] = field(default_factory=dict)

    def is_cached(self, name: str) -> bool:
        """Whether DVC had nothing to do for the stage."""
        return self.outcomes.get(name) is Outcome.CACHED


def _run_stages(run: Run, request: Request) -> State[Any]:
    dag = read_dag(run.workspace)
    forced, chosen = resolve_names(dag, request.force), choose_stages(dag, request.stages)
    check_timeouts(dag, run.settings.flow)
    ensure_slots(slot_name(), slots(run.settings.train.devices))
    ended = Ended()
    try:
        _run_in_order(chosen, forced, run, ended)
    except BaseException:
        # Ctrl-C, or Prefect's SIGTERM when somebody cancels: no process may outlive the flow run.
        stop_all()
        raise
    if ended.failures:
        failure = next(iter(ended.failures.values()))
        again = f"The workspace is {run.workspace}; the same command continues the run."
        error = UserError(str(failure)) if failure.is_users else RunError(f"{failure} {again}")
        return Failed(message=failure.with_log_end(), data=error)
    if not request.stages:
        untouched = not forced and all(each.unchanged for each in chosen)
        if run.isolated and not (untouched and is_saved(run)):
            save_run(run)
        publish_results(run.workspace)
    cached = sum(outcome is Outcome.CACHED for outcome in ended.outcomes.values())
    return Completed(message=f"{len(ended.outcomes) - cached} stages ran, {cached} were cached.", data=run)


def _run_in_order(chosen: Sequence[Stage], forced: Container[str], run: Run, ended: Ended) -> None:
    """Start each stage as soon as those that it needs have ended, well or not."""
    futures: dict[str, PrefectFuture[State[Any]]] = {}
    finished: SimpleQueue[str] = SimpleQueue()
    done: set[str] = set()
    while len(done) < len(chosen):
        for each in chosen:
            if each.name not in futures and done.issuperset(each.needs):
                # Prefect draws the DAG from these, and would not start a task that waits for one that did not run.
                needs = [futures[name] for name in each.needs if name in ended.outcomes]
                force = each.name in forced
                skip = each.unchanged and not force and all(ended.is_cached(name) for name in each.needs)
                one = _task_of(each, run.settings.flow, takes_slot=each.uses_accelerator and not skip)
                future = one.submit(each, run, ended, skip=skip, force=force, wait_for=needs)
                futures[each.name] = future
                future.add_done_callback(partial(_note, finished, each.name))
        done.add(finished.get())


def _note(finished: SimpleQueue[str], name: str, _: PrefectFuture[State[Any]]) -> None:
    finished.put(name)


def _task_of(each: Stage, settings: FlowSettings, *, takes_slot: bool) -> Task[..., State[Any]]:
    return bring_up_to_date.with_options(
        name=each.name,
        task_run_name=each.name,
        tags=[slot_name()] if takes_slot else [],
        retries=settings.retries,
        retry_delay_seconds=[settings.retry_delay_seconds * 2**attempt for attempt in range(settings.retries)],
    )


def _may_pass(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, StageError) and failure.retryable


@task(cache_policy=NO_CACHE, persist_result=False, retry_condition_fn=_may_pass)
def bring_up_to_date(each: Stage, run: Run, ended: Ended, *, skip: bool, force: bool) -> State[Any]:
    """Have DVC bring one stage up to date; the state carries the stage's own sentence where it fails."""
    missing = [name for name in each.needs if name not in ended.outcomes]
    if missing:
        return Cancelled(name="NotRun", message=f"Needs {', '.join(missing)}, which did not end well.")
    if is_stopping():
        return Cancelled(name="Stopped", message="The run was stopped before this stage began.")
    start = time.monotonic()
    with StageListener(each.name) as listener:
        try:
            outcome = Outcome.CACHED if skip else _run(each, run, listener, force=force)
        except StageError as failure:
            if failure.retryable and task_run.run_count <= run.settings.flow.retries and not is_stopping():
                listener.line(f"failed: {failure} It is tried again.")
                raise
            listener.line(f"failed: {failure}")
            if is_stopping():
                return Cancelled(name="Stopped", message=str(failure))
            ended.failures[each.name] = failure
            return Failed(message=failure.with_log_end())
        ended.outcomes[each.name] = outcome
        if outcome is Outcome.CACHED:
            listener.line("cached: nothing that it depends on has changed")
            return Completed(name="Cached", message="Nothing that it depends on has changed.")
        return Completed(message=f"Ran in {time.monotonic() - start:.1f} s.")


def _run(each: Stage, run: Run, listener: StageListener, *, force: bool) -> Outcome:
    settings = run.settings.flow
    limits = Limits(timeout_seconds(each, settings), settings.lock_wait_seconds)
    with free_accelerators(run.settings.train.devices if each.uses_accelerator else 0) as device:
        environment = run_environment(run) | device | {"PREFECT__FLOW_RUN_ID": str(flow_run.id)}
        return run_stage(run.workspace, each.name, environment, limits, listener, force=force)
