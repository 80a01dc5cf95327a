"""What a run would do, or has done already, without a flow run."""

import time
from dataclasses import replace

from vit_vs_cnn.core.paths import runs_dir
from vit_vs_cnn.orchestration.plan import outcome, plan_run
from vit_vs_cnn.orchestration.request import Request
from vit_vs_cnn.orchestration.workspace import PipelineRun, is_saved, open_run, remove_workspace


def preview(request: Request) -> list[str]:
    """The plan of a run, for people; nothing of it runs, and its workspace stays only if it was there before.

    Raises UserError for bad parameters, and while a run of the same name is active.
    """
    before = set(runs_dir().glob("*/"))
    with open_run(request) as run:
        lines = plan_run(run, request).lines()
    if run.isolated and run.workspace not in before:
        remove_workspace(run.workspace)
    return lines


def finished_run(request: Request) -> PipelineRun | None:
    """The run, if it has a workspace in which nothing is to be done; it takes a second, a flow run some more."""
    if request.force or request.stages or request.in_place or not any(runs_dir().glob("*/dvc.lock")):
        return None
    start = time.monotonic()
    with open_run(request) as run:
        plan = plan_run(run, request)
        if not plan.is_done or not is_saved(run):
            return None
    names = [planned.stage.name for planned in plan.stages]
    return replace(run, summary=outcome(time.monotonic() - start, len(names), names))
