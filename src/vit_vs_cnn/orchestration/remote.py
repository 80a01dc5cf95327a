"""Workers elsewhere: the deployment of deploy/remote.yaml, and what its flow runs keep beyond their clone."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from uuid import UUID

from vit_vs_cnn.core.errors import RunError, TransientError, UserError, first_line
from vit_vs_cnn.core.paths import STATE_VARIABLE, main_root, project_root
from vit_vs_cnn.core.process import search_path
from vit_vs_cnn.data.object_store import TIME_LIMITS, is_in_store, require_bucket, store_errors
from vit_vs_cnn.orchestration import prefect_server
from vit_vs_cnn.orchestration.dead_runs import end_tasks
from vit_vs_cnn.tracking.delivery import sync

POOL = "remote"
_AUTOMATION = "vit-vs-cnn: runs without heartbeat have crashed"
_HEARTBEAT = "prefect.flow-run.heartbeat"
_MISSED_HEARTBEATS = 3
# A server that was away for longer takes all live runs for crashed: it must have time to be started anew.
_SHORTEST_SILENCE = timedelta(minutes=5)
_OUR_FLOW = {"prefect.resource.role": "flow", "prefect.resource.name": "vit-vs-cnn"}


def deploy() -> str:
    """Set up the server of PREFECT_API_URL for workers elsewhere: pool, deployment, automation. Return its address.

    The automation sets flow runs to Crashed whose heartbeats stop: where a worker and its process are killed, or their
    machine fails, nothing else would (PrefectHQ/prefect #16746). Raises UserError where an address is not set or does
    not answer or the key is wrong, RunError where Prefect refuses.
    """
    api, repository = os.environ.get("PREFECT_API_URL"), os.environ.get("VIT_VS_CNN_GIT_URL")
    if not api or not repository:
        missing = (
            "VIT_VS_CNN_GIT_URL, the repository that workers clone" if api else "PREFECT_API_URL, Prefect's server"
        )
        raise UserError(f"{missing}, is not set: export it and deploy again.")
    if not prefect_server.answers(f"{api}/health"):
        raise UserError(f"PREFECT_API_URL: no server answers at {api}: start it, or correct the address.")
    environment = {"VIT_VS_CNN_GIT_BRANCH": "main", **os.environ, "PATH": search_path(), "PREFECT_API_URL": api}
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        prefect_server.deploy(environment, POOL)
        _crash_runs_without_heartbeat(api)
    except PrefectHTTPStatusError as error:
        if error.response.status_code != HTTPStatus.UNAUTHORIZED:
            raise
        raise UserError(f"PREFECT_API_AUTH_STRING: the server at {api} refuses this key.") from None
    return api


def prepare_clone(directory: str) -> dict[str, str]:
    """Give the clone in `directory`, where Prefect has put the code, what stays: a pull step of deploy/remote.yaml.

    The flow run has the clone's code, where it has one, and of this machine's installation the other packages alone.
    Checkpoints, records that MLflow does not have yet and DVC's cache are kept in VIT_VS_CNN_STATE (default:
    ~/.local/state/vit-vs-cnn/<name of the clone>), so that another attempt on this machine resumes. Delivers pending
    records, and pulls from DVC's remote what is there. Raises what `_pull` raises, and ends the flow run with it.
    """
    clone = Path(directory).resolve()
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    state = Path(os.environ.get(STATE_VARIABLE) or home / "vit-vs-cnn" / clone.name).resolve()
    # The process of the flow run gets this environment and this folder.
    os.environ[STATE_VARIABLE] = str(state)
    if (clone / "src" / "vit_vs_cnn").is_dir():
        # Not what is installed here: DVC and MLflow record the clone's code.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(clone / "src"), os.environ.get("PYTHONPATH")]))
    os.chdir(clone)
    project_root.cache_clear()
    main_root.cache_clear()
    try:
        with _heartbeats():
            _end_tasks_of_crashed_runs()
            _deliver()
            _pull(clone, state / "cache")
    except UserError as error:
        _fail_flow_run(str(error))
        raise
    return {"directory": str(clone)}


@contextmanager
def _heartbeats() -> Iterator[None]:
    """Emit the flow run's heartbeats from a thread meanwhile: Prefect's begin with the flow, a pull may be long."""
    from prefect.events import emit_event
    from prefect.settings import get_current_settings

    flow_run, flow = os.environ.get("PREFECT__FLOW_RUN_ID"), os.environ.get("PREFECT__FLOW_ID")
    frequency, ended = get_current_settings().flows.heartbeat_frequency, threading.Event()
    resource = {"prefect.resource.id": f"prefect.flow-run.{flow_run}"}
    related = [{"prefect.resource.id": f"prefect.flow.{flow}", **_OUR_FLOW}]

    def emit() -> None:
        while not ended.is_set():
            emit_event(_HEARTBEAT, resource, related=related)
            ended.wait(frequency)

    if flow_run and flow and frequency:
        # With this thread's context: Prefect keeps its server's address there.
        threading.Thread(target=copy_context().run, args=(emit,), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _end_tasks_of_crashed_runs() -> None:
    """The automation ends flow runs alone; their tasks would be shown as running for ever."""
    from httpx import HTTPError
    from prefect.exceptions import PrefectException

    if (api := os.environ.get("PREFECT_API_URL")) and os.environ.get("PREFECT__FLOW_RUN_ID"):
        try:
            with prefect_server.client_at(api) as client:
                end_tasks(client)
        except (HTTPError, PrefectException) as error:  # another worker may do the same, and this run can do without
            print(f"warning: tasks of crashed runs stay as they are: {first_line(error)}", file=sys.stderr)


def _deliver() -> None:
    """Deliver what earlier attempts could not; what stays pending stops no run."""
    try:
        delivered, pending = sync()
        if delivered or pending:
            print(f"{delivered} runs of earlier attempts delivered to MLflow, {pending} pending")
    except UserError as error:
        print(f"warning: {error}", file=sys.stderr)


def _pull(clone: Path, cache: Path) -> None:
    """Pull what DVC's remote, if there is one, has of the committed stages, with the cache in the folder `cache`.

    Raises UserError where the remote refuses, TransientError where it cannot be reached.
    """
    from dvc.config import Config
    from dvc.fs import get_cloud_fs

    committed = Config(str(clone / ".dvc"))
    name = committed["core"].get("remote", "")
    remote = committed["remote"].get(name, {})
    url = remote.get("url", "")
    with committed.edit("local") as local:
        local["cache"]["dir"] = str(cache)
        if is_in_store(url):
            # Of DVC's many attempts at a store that stays silent each would wait a minute.
            local["remote"][name] = {limit: remote.get(limit, seconds) for limit, seconds in TIME_LIMITS.items()}
    if not name:
        return
    if is_in_store(url):
        config = Config(str(clone / ".dvc"))
        # DVC takes a bucket that is not there for one that has nothing.
        with store_errors(f"DVC's remote {name}: {url}"):
            file_system, options, path = get_cloud_fs(config, name=name)
            require_bucket(path, **file_system(**options).fs_args)
    command = [sys.executable, "-m", "dvc", "pull", "--run-cache", "--allow-missing"]
    answer = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        said = [line.removeprefix("ERROR: ") for line in answer.stderr.splitlines() if line.startswith("ERROR: ")]
        raise TransientError(f"DVC's remote {name} cannot be read: {said[-1] if said else 'DVC does not say why'}")


def _fail_flow_run(sentence: str) -> None:
    """End the flow run as Failed: of a pull step Prefect itself only says that its process exited."""
    flow_run, api = os.environ.get("PREFECT__FLOW_RUN_ID"), os.environ.get("PREFECT_API_URL")
    if flow_run and api:
        with prefect_server.client_at(api) as client:
            from prefect.states import Failed

            client.set_flow_run_state(UUID(flow_run), Failed(message=sentence))


def _crash_runs_without_heartbeat(api: str) -> None:
    with prefect_server.client_at(api) as client:
        from prefect.client.schemas.objects import StateType
        from prefect.events.actions import ChangeFlowRunState
        from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
        from prefect.events.schemas.events import ResourceSpecification
        from prefect.settings import get_current_settings

        frequency = get_current_settings().flows.heartbeat_frequency
        if frequency is None:
            raise RunError("PREFECT_FLOWS_HEARTBEAT_FREQUENCY switches heartbeats off: set it to 30 or more seconds.")
        within = max(_SHORTEST_SILENCE, timedelta(seconds=_MISSED_HEARTBEATS * frequency))
        ends = ("Completed", "Failed", "Crashed", "Cancelled", "Suspended", "Paused")
        automation = AutomationCore(
            name=_AUTOMATION,
            trigger=EventTrigger(
                match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
                match_related=ResourceSpecification(dict(_OUR_FLOW)),
                for_each={"prefect.resource.id"},
                after={_HEARTBEAT},
                expect={_HEARTBEAT, *(f"prefect.flow-run.{name}" for name in ends)},
                posture=Posture.Proactive,
                threshold=1,
                within=within,
            ),
            actions=[
                ChangeFlowRunState(
                    name=None,
                    state=StateType.CRASHED,
                    message=f"No heartbeat for {within.total_seconds():g} s: its worker was killed, its machine failed "
                    "or this server was away. Where its process has ended, the same run again continues there.",
                    force=False,
                )
            ],
        )
        existing = client.read_automations_by_name(_AUTOMATION)
        if existing:
            client.update_automation(existing[0].id, automation)
        else:
            client.create_automation(automation)
