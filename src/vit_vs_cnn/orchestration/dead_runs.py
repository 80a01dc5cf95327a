"""Flow runs whose process was killed: Prefect takes them for running until somebody says otherwise."""

from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

from vit_vs_cnn.core.process import ProcessIdentity
from vit_vs_cnn.orchestration.active_runs import hold_dead_runs
from vit_vs_cnn.orchestration.prefect_server import client_at

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import StateType

_TAG = "process"


def process_tag() -> str:
    """The tag of the flow runs of this process, from which another one can see whether it still runs."""
    process = ProcessIdentity.current()
    return f"{_TAG} {process.host} {process.pid} {process.start:.2f}"


def report_dead_runs(api: str) -> None:
    """Set to Crashed what Prefect takes for running and whose process was killed, which could not do so itself."""
    with client_at(api) as client:
        for run in hold_dead_runs(unreported=True):
            _set_crashed(client, UUID(run.flow_run_id), run.process)
            run.model_copy(update={"flow_run_id": None}).save()
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType

        unfinished = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_unfinished())))
        for flow_run in client.read_flow_runs(flow_run_filter=unfinished):
            process = _process_of(flow_run.tags)
            if process is not None and process.is_gone():
                _set_crashed(client, flow_run.id, process)
        end_tasks(client)


def end_tasks(client: "SyncPrefectClient") -> None:
    """Set to Crashed the tasks of flow runs that crashed; Prefect may learn of a task after its run's end."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    state = filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[StateType.CRASHED]))
    ours = filters.FlowFilter(name=filters.FlowFilterName(any_=["vit-vs-cnn"]))  # a team's server has other flows too
    unfinished = filters.TaskRunFilterState(type=filters.TaskRunFilterStateType(any_=_unfinished()))
    for task_run in client.read_task_runs(
        flow_filter=ours,
        flow_run_filter=filters.FlowRunFilter(state=state),
        task_run_filter=filters.TaskRunFilter(state=unfinished),
    ):
        client.set_task_run_state(task_run.id, Crashed(message="Its flow run crashed."), force=True)


def _set_crashed(client: "SyncPrefectClient", flow_run_id: UUID, process: ProcessIdentity) -> None:
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    message = f"Process {process.pid} was killed; starting the run again continues it."
    try:
        state = client.read_flow_run(flow_run_id).state
    except ObjectNotFound:  # another server's run, or one that was deleted meanwhile
        return
    if state is None or not state.is_final():
        client.set_flow_run_state(flow_run_id, Crashed(message=message), force=True)


def _unfinished() -> "list[StateType]":
    from prefect.client.schemas.objects import TERMINAL_STATES, StateType

    return [kind for kind in StateType if kind not in TERMINAL_STATES]


def _process_of(tags: Iterable[str]) -> ProcessIdentity | None:
    """The process that a flow run's tags name, None of a run that a worker started."""
    for tag in tags:
        kind, *facts = tag.split(" ")
        if kind == _TAG and len(facts) == 3:
            return ProcessIdentity(facts[0], int(facts[1]), float(facts[2]))
    return None
