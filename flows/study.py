"""A study as a Prefect flow, `vit-vs-cnn/study`: the pipeline at every point of studies/<name>.yaml.

On a worker of `vit-vs-cnn up` every point is a flow run of `vit-vs-cnn/local`, so that several workers share them;
`vit-vs-cnn study` runs one point after the other in its own process.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from filelock import FileLock, Timeout
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, State, StateType
from prefect.deployments import run_deployment
from prefect.flows import load_flow_from_entrypoint
from prefect.runtime import deployment
from prefect.states import Cancelling, Completed, Failed
from pydantic import Field

from vit_vs_cnn.core.console import duration
from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.paths import main_root, runs_dir
from vit_vs_cnn.orchestration.local_services import RUNS_AT_ONCE_VARIABLE
from vit_vs_cnn.orchestration.progress import say
from vit_vs_cnn.orchestration.request import Request
from vit_vs_cnn.studies.plan import Plan, PlannedRun, plan_study, study_folder
from vit_vs_cnn.studies.results import RunFailure, collect, record_result
from vit_vs_cnn.studies.settings import find_study, point_text, read_study, settings_at

PIPELINE = Path(__file__).with_name("pipeline.py")
# Measured, and no more: figures, explanations and a version of each point nobody would look at.
STAGES = ("evaluate",)
_SECONDS_BETWEEN_LOOKS = 1.0


@flow(name="vit-vs-cnn", flow_run_name="study-{study}", description="The pipeline at every point of a study.")
def study(study: Annotated[str, Field(min_length=1, examples=["demo"])]) -> State[Any]:
    """Run every point of a study that is not up to date, and write down what all of them say.

    Args:
        study: Name of the study, studies/NAME.yaml, for example `demo`, or the path of its file.
    """
    root = main_root()
    try:
        path = find_study(study, root)
        with _only_here(study_folder(root, path.stem)) as folder:
            return _run(path, root, folder)
    except UserError as error:
        return Failed(message=str(error), data=error)


def _run(path: Path, root: Path, folder: Path) -> State[Any]:
    # The imports of figures and statistics take as long as planning needs none of them.
    from vit_vs_cnn.studies.publish import PAGE, publish_study
    from vit_vs_cnn.studies.summary import answer
    from vit_vs_cnn.studies.tracking import track_study

    plan = plan_study(path, root, say)
    say(
        f"study {plan.study}: {len(plan.runs)} runs, about {duration(plan.seconds)} one after the other on this machine"
    )
    # Where studies that wait held all places of the workers, nobody would run their points.
    if deployment.id and _active_studies(UUID(deployment.id)) < int(os.environ.get(RUNS_AT_ONCE_VARIABLE, "1")):
        _run_on_workers(plan, folder)
    else:
        _run_here(plan, folder)
    summary = publish_study(plan, folder)
    # Not the settings of a run, which with a budget in seconds has only one of the contestants.
    track_study(summary, settings_at(read_study(path, root), {}, root), folder)
    create_markdown_artifact(
        f"{answer(summary)}\n\n`{folder / PAGE}`", key="study", description="The answer of a study"
    )
    failed = summary.results.failed
    if failed:
        named = "; ".join(f"{name}: {sentence}" for name, sentence in failed.items())
        failure = RunError(f"{len(failed)} of {len(plan.runs)} runs failed, the next start runs these only: {named}")
        return Failed(message=str(failure), data=failure)
    return Completed(message=answer(summary))


def _active_studies(deployment_id: UUID) -> int:
    """How many studies hold a place of a worker, this one among them."""
    types = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    of_studies = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    active = FlowRunFilter(state=FlowRunFilterState(type=types))
    with get_client(sync_client=True) as client:
        return len(client.read_flow_runs(deployment_filter=of_studies, flow_run_filter=active))


def _run_here(plan: Plan, folder: Path) -> None:
    pipeline: Any = load_flow_from_entrypoint(f"{PIPELINE}:pipeline")
    for number, run in enumerate(plan.runs, start=1):
        say(f"run {number} of {len(plan.runs)}: {run.name} ({point_text(run.values)})")
        start = time.monotonic()
        _record(run, pipeline(**_parameters(plan, run), return_state=True), folder, time.monotonic() - start)


def _run_on_workers(plan: Plan, folder: Path) -> None:
    """Submit every run, and record each when it ends, in whatever order."""
    with get_client(sync_client=True) as client, _submitted(plan, client) as open_runs:
        say(f"{len(open_runs)} runs are submitted")
        ended = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES)))
        while open_runs:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            ids = FlowRunFilterId(any_=list(open_runs))
            for found in client.read_flow_runs(flow_run_filter=FlowRunFilter(id=ids, state=ended)):
                if found.state is not None:
                    run = open_runs.pop(found.id)
                    _record(run, found.state, folder, found.total_run_time.total_seconds())
                    say(f"{run.name}: {found.state.name}, {len(open_runs)} left")


@contextmanager
def _submitted(plan: Plan, client: SyncPrefectClient) -> Iterator[dict[UUID, PlannedRun]]:
    """The flow runs of the points, by id, among them what a killed start of the study has submitted.

    Those that are still open at the end are cancelled.
    """
    open_runs: dict[UUID, PlannedRun] = {}
    unfinished = FlowRunFilterStateType(any_=[kind for kind in StateType if kind not in TERMINAL_STATES])
    earlier = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=unfinished)))
    try:
        for run in plan.runs:
            parameters = _parameters(plan, run)
            same = next((found for found in earlier if parameters.items() <= found.parameters.items()), None)
            flow_run: Any = same or run_deployment("vit-vs-cnn/local", parameters=parameters, timeout=0)
            open_runs[flow_run.id] = run
        yield open_runs
    finally:
        for flow_run_id in open_runs:
            client.set_flow_run_state(flow_run_id, Cancelling(message="The study was stopped."))


@contextmanager
def _only_here(folder: Path) -> Iterator[Path]:
    """Keep others from running the study in `folder`. Raises UserError where somebody does."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "study.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"study {folder.name} runs in another process: vit-vs-cnn study status {folder.name} says how far it is."
        ) from None
    try:
        yield folder
    finally:
        lock.release()


def _parameters(plan: Plan, run: PlannedRun) -> dict[str, Any]:
    request = asdict(Request(plan.preset, run.overrides, run.name, STAGES))
    return {key: list(value) if isinstance(value, tuple) else value for key, value in request.items()}


def _record(run: PlannedRun, state: State[Any], folder: Path, seconds: float) -> None:
    """Record what a run measured, or why it failed."""
    try:
        if not state.is_completed():
            raise UserError(state.message or str(state.name))
        record_result(folder, collect(runs_dir() / run.name, run, seconds))
    except UserError as error:
        sentence = str(error).split("\n\n")[0]
        record_result(folder, RunFailure(name=run.name, sentence=sentence))
        say(f"{run.name}: failed: {sentence}")
