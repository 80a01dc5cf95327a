"""A study as a Prefect flow, `vit-vs-cnn/study`: the pipeline at every point of studies/<name>.yaml.

On a worker every point is a flow run of `vit-vs-cnn/local`, so that several workers share them; `vit-vs-cnn study` runs
one point after the other in its own process.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.flows import load_flow_from_entrypoint
from prefect.runtime import deployment
from prefect.states import Cancelling, Completed, Failed
from pydantic import Field

from vit_vs_cnn.config.load import merged_params, settings_of
from vit_vs_cnn.core.console import duration
from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.paths import main_root, runs_dir
from vit_vs_cnn.orchestration.local_services import RUNS_AT_ONCE_VARIABLE
from vit_vs_cnn.orchestration.progress import say
from vit_vs_cnn.orchestration.request import Request
from vit_vs_cnn.studies.plan import Plan, PlannedRun, plan_study, study_folder
from vit_vs_cnn.studies.results import RunFailure, collect, record_result
from vit_vs_cnn.studies.settings import find_study, point_text

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
    # The imports of figures and statistics take as long as planning needs none of them.
    from vit_vs_cnn.studies.publish import PAGE, publish_study
    from vit_vs_cnn.studies.summary import answer
    from vit_vs_cnn.studies.tracking import track_study

    root = main_root()
    try:
        path = find_study(study, root)
        folder = study_folder(root, path.stem)
        plan = plan_study(path, root, say)
        settings = settings_of(merged_params(root, plan.preset or None, plan.runs[0].overrides))
    except UserError as error:
        return Failed(message=str(error), data=error)
    say(
        f"study {plan.study}: {len(plan.runs)} runs, about {duration(plan.seconds)} one after the other on this machine"
    )
    if deployment.id and int(os.environ.get(RUNS_AT_ONCE_VARIABLE, "2")) > 1:
        _run_on_workers(plan, folder)
    else:
        _run_here(plan, folder)
    summary = publish_study(plan, folder)
    track_study(summary, settings, folder)
    create_markdown_artifact(
        f"{answer(summary)}\n\n`{folder / PAGE}`", key="study", description="The answer of a study"
    )
    failed = summary.results.failed
    if failed:
        named = "; ".join(f"{name}: {sentence}" for name, sentence in failed.items())
        failure = RunError(f"{len(failed)} of {len(plan.runs)} runs failed, the next start runs these only: {named}")
        return Failed(message=str(failure), data=failure)
    return Completed(message=answer(summary))


def _run_here(plan: Plan, folder: Path) -> None:
    pipeline: Any = load_flow_from_entrypoint(f"{PIPELINE}:pipeline")
    for number, run in enumerate(plan.runs, start=1):
        say(f"run {number} of {len(plan.runs)}: {run.name} ({point_text(run.values)})")
        start = time.monotonic()
        _record(run, pipeline(**_parameters(plan, run), return_state=True), folder, time.monotonic() - start)


def _run_on_workers(plan: Plan, folder: Path) -> None:
    """Submit every run, and record each when it ends, in whatever order."""
    with get_client(sync_client=True) as client, _submitted(plan, client) as open_runs:
        while open_runs:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            for flow_run_id, run in list(open_runs.items()):
                found = client.read_flow_run(flow_run_id)
                if found.state is not None and found.state.is_final():
                    del open_runs[flow_run_id]
                    _record(run, found.state, folder, found.total_run_time.total_seconds())
                    say(f"{run.name}: {found.state.name}, {len(open_runs)} left")


@contextmanager
def _submitted(plan: Plan, client: SyncPrefectClient) -> Iterator[dict[UUID, PlannedRun]]:
    """The flow runs of the points, by id; those that are still open at the end are cancelled."""
    open_runs: dict[UUID, PlannedRun] = {}
    try:
        for run in plan.runs:
            flow_run: Any = run_deployment("vit-vs-cnn/local", parameters=_parameters(plan, run), timeout=0)
            open_runs[flow_run.id] = run
        yield open_runs
    finally:
        for flow_run_id in open_runs:
            client.set_flow_run_state(flow_run_id, Cancelling(message="The study was stopped."))


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
