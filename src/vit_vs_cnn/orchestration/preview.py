"""What a run would do, or has done already, without a flow run."""

import time
from dataclasses import replace
from pathlib import Path

from vit_vs_cnn.core.paths import PARAMS, main_root, runs_dir
from vit_vs_cnn.orchestration.plan import RunPlan, plan_run
from vit_vs_cnn.orchestration.request import Request, read_request
from vit_vs_cnn.orchestration.workspace import PipelineRun, is_saved, open_run, remove_workspace, run_name


def preview(request: Request) -> RunPlan:
    """The plan of a run; nothing of it runs, and its workspace stays only if it was there before, with its settings.

    Raises UserError for bad parameters, and while a run of the same name is active.
    """
    workspace = _workspace(request)
    is_new, params = not workspace.exists(), workspace / PARAMS
    before = params.read_bytes() if params.is_file() and not request.in_place else None
    with open_run(request) as run:
        try:
            return plan_run(run, request)
        finally:
            if before is not None:
                params.write_bytes(before)
            if is_new:
                remove_workspace(run.workspace)


def finished_run(request: Request) -> PipelineRun | None:
    """The run, if it has a workspace in which nothing has to be done: to find that takes less than a flow run."""
    if request.force or request.stages or not (_workspace(request) / "dvc.lock").is_file():
        return None
    start = time.monotonic()
    with open_run(request) as run:
        plan = plan_run(run, request)
        if not plan.is_done or (run.isolated and not is_saved(run)):
            return None
    names = tuple(planned.stage.name for planned in plan.stages)
    return replace(run, seconds=time.monotonic() - start, cached=names)


def _workspace(request: Request) -> Path:
    return main_root() if request.in_place else runs_dir() / run_name(request, read_request(request)[0])
