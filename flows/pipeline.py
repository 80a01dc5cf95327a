"""The pipeline as a Prefect flow: one task per stage that DVC names, in the order that DVC's DAG allows.

`prefect deployment run 'vit-vs-cnn/local' -p preset=demo` and `vit-vs-cnn run --preset demo` both run this flow.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run, task_run
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import Task
from pydantic import Field

from vit_vs_cnn.config.load import preset_names
from vit_vs_cnn.core.errors import RunError, TransientError, UserError
from vit_vs_cnn.orchestration.accelerators import ensure_limit, use_accelerators
from vit_vs_cnn.orchestration.artifacts import is_registered_elsewhere, link_trainings, publish_results
from vit_vs_cnn.orchestration.dag import timeout_seconds
from vit_vs_cnn.orchestration.durations import attempt, record_duration
from vit_vs_cnn.orchestration.plan import PlannedStage, RunPlan, plan_run
from vit_vs_cnn.orchestration.progress import StageOutput, say
from vit_vs_cnn.orchestration.request import Request, read_request
from vit_vs_cnn.orchestration.stage_process import StageCommand, StageResult, is_stopping, run_stage, stop_all
from vit_vs_cnn.orchestration.workspace import PipelineRun, is_saved, open_run, run_environment, run_name, save_run
from vit_vs_cnn.tracking.delivery import DEFERRED_VARIABLE, Deliverer

PROJECT = Path(__file__).resolve().parent.parent

Preset = Annotated[str, Field(json_schema_extra={"enum": ["", *preset_names(PROJECT)]})]
Override = Annotated[str, Field(pattern=r"^[^=]+=[\s\S]*$", examples=["train.epochs=3", "seeds=[0, 1, 2]"])]
StageName = Annotated[str, Field(examples=["train", "train@vit-0", "compare"])]
Name = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$", examples=["pets-quick"])]

# A stage runs in a process; its thread only waits.
THREADS: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=1_000)


def _flow_run_name() -> str:
    """The name of the run, which its workspace and its DVC experiment have too, and the stages that are asked for."""
    given: dict[str, Any] = {key: value for key, value in flow_run.parameters.items() if value is not None}
    try:
        asked: dict[str, Any] = {key: tuple(part) if isinstance(part, list) else part for key, part in given.items()}
        request = Request(**asked)
        name = run_name(request, read_request(request)[0])
    except (UserError, TypeError):  # the flow itself ends with it
        name = str(given.get("name") or given.get("preset") or "params")
    stages = given.get("stages")
    return f"{name}: {', '.join(stages)}" if stages else name


@flow(
    name="vit-vs-cnn",
    flow_run_name=_flow_run_name,
    description="ViT or CNN? Data, EDA, tuning, training, evaluation, explanation, comparison, registration.",
    task_runner=THREADS,
)
def pipeline(
    preset: Preset = "",
    overrides: list[Override] = [],  # noqa: B006 - Prefect copies it
    stages: list[StageName] = [],  # noqa: B006
    force: list[StageName] = [],  # noqa: B006
    name: Name = "",
    in_place: bool = False,
) -> State[Any]:
    """Run the stages of dvc.yaml; what DVC would skip is Cached, what needs a failed stage is NotReady.

    Args:
        preset: Apply presets/NAME.yaml on top of params.yaml. `demo`: handwritten digits, minutes on a laptop; `debug`:
            one epoch of it; `cpu`: CIFAR-10 from scratch on a CPU; `scratch`: the same on one GPU; `matched`: networks
            alike in pretraining and size; `airbench94`: time to accuracy. Empty: params.yaml as it is.
        overrides: Settings to change, each `key.path=value`, for example `train.epochs=3`.
        stages: Stages to run, with what they need, for example `train@vit-0`; `train` is every `train@<contestant>`.
            Empty: all.
        force: Stages to run though nothing changed, for example `compare`.
        name: Name of the run and its DVC experiment, for example `pets-quick`; the same name continues it. Empty: made
            from the parameters.
        in_place: Run params.yaml as it stands in the project folder, not in an isolated workspace.
    """
    request = Request(preset, tuple(overrides), name, tuple(stages), tuple(force), in_place)
    try:
        with open_run(request, str(flow_run.id)) as run:
            return _run_stages(run, request)
    except (UserError, RunError) as error:
        return Failed(message=str(error), data=error)


def _run_stages(run: PipelineRun, request: Request) -> State[Any]:
    start, plan = time.monotonic(), plan_run(run, request)
    for line in plan.lines():
        say(line)
    if plan.is_done:
        futures = _submit(plan, run)
    else:
        ensure_limit()
        with Deliverer(run_environment(run)) as deliverer:
            futures = _submit(plan, run)
            if undelivered := deliverer.finish():
                say(f"warning: {undelivered}")
    failed = next((future.state for future in futures.values() if not future.state.is_completed()), None)
    if failed is not None:
        error = failed.result(raise_on_failure=False)
        if not isinstance(error, UserError):
            error = RunError(f"{error} The workspace is {run.workspace}; run the same command again to resume.")
        return Failed(message=failed.message, data=error)
    has_results = not request.stages or "evaluate" in request.stages
    if has_results and run.isolated and not (plan.is_done and is_saved(run)):
        save_run(run, [*futures] if request.stages else ())
    if "compare" in futures:
        publish_results(run.workspace)
    if "register" in futures and is_registered_elsewhere(run.workspace):
        say(
            "warning: these results came from DVC's cache, and their runs and versions are in another MLflow store; "
            "`--force train` trains and registers them here."
        )
    cached = tuple(name for name, future in futures.items() if future.result() is StageResult.CACHED)
    ran = tuple(name for name in futures if name not in cached)
    finished = replace(run, seconds=time.monotonic() - start, ran=ran, cached=cached)
    return Completed(message=f"{len(ran)} stages ran, {len(cached)} were cached.", data=finished)


def _submit(plan: RunPlan, run: PipelineRun) -> dict[str, PrefectFuture[Any]]:
    """Run the stages of the plan, each as a task, and wait for all of them."""
    settings = run.settings.flow
    delays = [settings.retry_delay_seconds * 2**attempt for attempt in range(settings.retries)]
    futures: dict[str, PrefectFuture[Any]] = {}
    try:
        for planned in plan.stages:
            stage = planned.stage
            stage_task = run_stage_task.with_options(
                name=stage.name, task_run_name=stage.name, retries=settings.retries, retry_delay_seconds=delays
            )
            futures[stage.name] = stage_task.submit(
                planned, run, return_state=False, wait_for=[futures[name] for name in stage.needs]
            )
        wait([*futures.values()])
    except BaseException:
        # Ctrl-C, or Prefect's SIGTERM where a person cancels: no process may outlive the flow run.
        stop_all()
        raise
    return futures


def _is_retryable(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), TransientError) and not is_stopping()


@task(cache_policy=NO_CACHE, persist_result=False, retry_condition_fn=_is_retryable)
def run_stage_task(planned: PlannedStage, run: PipelineRun) -> State[Any]:
    """Have DVC bring a stage up to date; where it fails the state has the stage's own sentence."""
    stage = planned.stage
    with StageOutput(stage.name) as output:
        if task_run.run_count > 1:
            output.say(f"attempt {task_run.run_count} of {run.settings.flow.retries + 1}")
        try:
            result, seconds = (StageResult.CACHED, 0.0) if planned.is_cached else _run_process(planned, run, output)
        except (UserError, RunError) as error:
            output.say(f"failed: {error}")
            message = "\n\n".join([str(error), *getattr(error, "__notes__", [])])
            return (Cancelled if is_stopping() else Failed)(message=message, data=error)
        link_trainings(run.workspace, stage.name)
        if result is StageResult.CACHED:
            output.done(None)
            return Completed(name="Cached", message="Nothing that it depends on has changed.", data=result)
        output.done(seconds)
        return Completed(message=f"Ran in {seconds:.1f} s.", data=result)


def _run_process(planned: PlannedStage, run: PipelineRun, output: StageOutput) -> tuple[StageResult, float]:
    """What DVC did, and in how many seconds, without those in which the stage waited for a device."""
    settings, stage = run.settings, planned.stage
    with use_accelerators(settings.train.devices if stage.uses_accelerator else 0, output.say) as devices:
        variables = {"PREFECT__FLOW_RUN_ID": str(flow_run.id), DEFERRED_VARIABLE: "1"}
        environment = run_environment(run) | devices | variables
        timeout, lock_wait = timeout_seconds(stage, settings.flow), settings.flow.lock_wait_seconds
        command = StageCommand(run.workspace, stage.name, environment, timeout, lock_wait, planned.forced)
        start = time.monotonic()
        with attempt(stage, run.settings.data) as is_whole:
            result = run_stage(command, output)
        seconds = time.monotonic() - start
        if is_whole and result is StageResult.RAN:
            record_duration(stage, run.settings.data, seconds)
        return result, seconds
