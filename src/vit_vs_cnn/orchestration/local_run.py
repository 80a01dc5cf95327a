"""`vit-vs-cnn run`: the flow in this process, shown on this terminal, with a Prefect server around it."""

import os
from typing import Any

from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.paths import main_root
from vit_vs_cnn.orchestration.display import Terminal, show_on
from vit_vs_cnn.orchestration.prefect_server import ServerForARun, prefect_settings
from vit_vs_cnn.orchestration.retention import report_dead_runs
from vit_vs_cnn.orchestration.workspace import Request, Run, check_request

FLOW = "flows/pipeline.py:pipeline"


def run_here(request: Request) -> Run:
    """Run the pipeline's flow and wait for it.

    Raises UserError with the stage's own sentence where it left one, RunError where a stage failed otherwise.
    """
    server = ServerForARun()
    # Prefect reads its settings when it is imported; the terminal shows the stages' lines, not Prefect's.
    os.environ.update(prefect_settings())
    os.environ.update({"PREFECT_API_URL": server.api, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"})
    from prefect.flows import load_flow_from_entrypoint

    # The imports and the check of the models take as long as the server takes to start: side by side.
    flow: Any = load_flow_from_entrypoint(f"{main_root()}/{FLOW}")
    check_request(request)
    server.wait()
    report_dead_runs(server.api)
    with Terminal() as terminal:
        show_on(terminal)
        state: Any = flow(**_parameters(request), return_state=True)
    result = state.result(raise_on_failure=False)
    if isinstance(result, UserError | RunError):
        raise result
    if not isinstance(result, Run):
        raise RunError(f"the flow run ended as {state.name}: {state.message}")
    return result


def _parameters(request: Request) -> dict[str, Any]:
    """The flow's parameters, which are what a form can hold: lists, and empty texts for what is left out."""
    texts = {"preset": request.preset or "", "name": request.name or ""}
    lists = {"overrides": [*request.overrides], "stages": [*request.stages], "force": [*request.force]}
    return {**texts, **lists, "in_place": request.in_place}
