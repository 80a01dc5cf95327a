"""Flow runs on a real Prefect server, worker and MLflow server, as `vit-vs-cnn up` starts them."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import psutil
import pytest

from factories import TINY, add_version, new_registry
from harness.local_services import Server
from harness.signals import in_background
from harness.small_project import SmallProject, wait_for
from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.core import paths
from vit_vs_cnn.registry.audit import open_audit_log
from vit_vs_cnn.registry.versions import CHAMPION, Registry
from vit_vs_cnn.tracking.outbox import RunRef


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    return SmallProject(tmp_path_factory.mktemp("flows"))


@pytest.fixture(scope="module")
def server(small: SmallProject) -> Iterator[Server]:
    server = Server(small)
    yield server
    if server.process.poll() is None:
        server.stop()
    left = [process.cmdline() for process in small.processes()]
    assert left == []


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook receiver on loopback: its address and what it received."""
    received: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listener.server_port}/", received
    listener.shutdown()


def test_up_prints_three_addresses_that_answer(server: Server) -> None:
    text = server.log.read_text()
    for port in server.ports:
        assert f"http://127.0.0.1:{port}" in text
    for port, path in zip(server.ports, ("api/health", "health", "health"), strict=True):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=300) as answer:
            assert answer.status == 200
    state = server.small.root / ".vit-vs-cnn"
    assert (state / "prefect/prefect.db").is_file()
    # Where runs of a terminal find the pages that their report links to.
    assert (state / "mlflow.url").read_text() == f"http://127.0.0.1:{server.ports[1]}"


def test_every_service_is_one_process(server: Server) -> None:
    """MLflow's own command would be two."""
    services = psutil.Process(server.process.pid).children()
    assert len(services) >= len(server.ports)
    for service in services:
        assert service.children() == [], service.cmdline()


def test_a_taken_port_is_reported_with_its_holder(server: Server) -> None:
    output = server.small.call("up", "--prefect-port", str(server.ports[0]), code=2)
    assert output.startswith(f"error: port {server.ports[0]} is taken by process ")
    assert " uvicorn " in output
    assert "--prefect-port" in output


def test_deployments_are_declared_with_help_and_checked_before_anything_starts(server: Server) -> None:
    for name in ("local", "promote", "study", "tune-worker"):
        schema = server.deployment(name)["parameter_openapi_schema"]["properties"]
        assert all(len(parameter["description"]) > 20 for parameter in schema.values())
        written = [json.dumps(parameter) for parameter in schema.values() if parameter["type"] != "boolean"]
        assert all('"examples"' in text or '"enum"' in text for text in written), written
    schema = server.deployment()["parameter_openapi_schema"]["properties"]
    assert schema["preset"]["enum"] == ["", "other"]
    nightly = server.deployment("nightly")
    assert [(item["active"], item["schedule"]["cron"]) for item in nightly["schedules"]] == [(False, "0 3 * * *")]
    for wrong in ({"preset": "othre"}, {"overrides": ["seeds"]}, {"name": "../up"}, {"in_place": "perhaps"}):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            server.submit(**wrong)
        assert refusal.value.code in (409, 422)


def test_a_run_has_a_task_per_stage_and_is_saved_and_the_next_one_is_cached(server: Server) -> None:
    small = server.small
    first = server.submit(name="first", preset="other")
    assert server.end(first)["message"] == "5 stages ran, 0 were cached."
    stages = ("prepare", "eda", "train@vit", "train@resnet", "compare")
    wait_for(lambda: server.task_states(first) == dict.fromkeys(stages, "Completed"))
    assert (small.root / "runs/first/out/prepare").read_text() == f"prepare {first}"
    assert "seeds:\n- 77\n" in (small.root / "runs/first/params.yaml").read_text()
    assert "first" in small.experiments().split()
    assert small.git("status", "--short") == ""
    wait_for(lambda: "compare says hello" in server.messages(first))
    progress = server.ask("artifacts/filter", {"artifacts": {"key": {"any_": ["progress-train-vit"]}}})
    assert progress[0]["data"] == 50
    trained = small.root / "runs/first" / paths.trained("vit", 0)
    trained.mkdir(parents=True)
    RunRef(key="k", run_id="0a1b", experiment="tiny", name="train-vit-0").write(trained / paths.RUN_FILE)
    again = server.submit(name="first", preset="other")
    assert server.end(again)["message"] == "0 stages ran, 5 were cached."
    link = {"key": {"any_": ["mlflow-train-vit-0"]}, "flow_run_id": {"any_": [again]}}
    (linked,) = server.ask("artifacts/filter", {"artifacts": link})
    assert f"http://127.0.0.1:{server.ports[1]}/#/runs/0a1b?" in linked["data"]
    wait_for(lambda: set(server.task_states(again).values()) == {"Cached"})
    assert len(small.started("first")) == 5


def test_a_flow_run_has_the_name_of_its_workspace_and_the_stages_that_were_asked_for(server: Server) -> None:
    unnamed = server.submit(preset="other")
    part = server.submit(preset="other", overrides=["seeds=[5]"], stages=["eda"])
    assert [server.end(flow_run)["type"] for flow_run in (unnamed, part)] == ["COMPLETED"] * 2
    workspaces = {path.name for path in server.small.root.glob("runs/other-*") if path.is_dir()}
    name, of_part = (server.ask(f"flow_runs/{flow_run}")["name"] for flow_run in (unnamed, part))
    assert {name, of_part.removesuffix(": eda")} == workspaces
    assert of_part.endswith(": eda")


def test_a_failed_stage_ends_the_run_with_its_sentence_after_the_branches_that_do_not_need_it(server: Server) -> None:
    small = server.small
    small.control("bad", train_vit={"fails": 9, "sentence": "models.vit: it cannot be."}, eda={"seconds": 3})
    known, parameters = _recorded(small), {"name": "bad", "overrides": ["data.name=bad"]}
    flow_run = server.submit(**parameters)
    state = server.end(flow_run)
    assert state["type"] == "FAILED"
    first_line, *rest = state["message"].splitlines()
    assert first_line == "models.vit: it cannot be."
    assert "the last line of the log" in rest
    done = dict.fromkeys(("prepare", "eda", "train@resnet"), "Completed")
    wait_for(lambda: server.task_states(flow_run) == done | {"train@vit": "Failed", "compare": "NotReady"})
    assert small.started("bad").count("train-vit") == 1
    small.control("bad")
    assert server.end(server.submit(**parameters))["type"] == "COMPLETED"
    # What an attempt after a failed one takes may be a part of the whole.
    assert _recorded(small) - known == Counter([*done, "compare"])
    server.end(server.submit(**parameters, force=["train@vit"]))
    assert _recorded(small) - known == Counter([*done, "compare", "train@vit"])


def _recorded(small: SmallProject) -> Counter[str]:
    """For how many settings it is recorded how long each stage took."""
    records = (small.root / ".vit-vs-cnn" / "durations").glob("*.json")
    return Counter(json.loads(record.read_text())["stage"] for record in records)


def test_an_automation_of_prefect_notifies_of_a_failed_run(
    server: Server, hook: tuple[str, list[dict[str, Any]]]
) -> None:
    small, (address, received) = server.small, hook
    block_type = server.ask("block_types/slug/custom-webhook")
    schemas = server.ask("block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [block_type["id"]]}}})
    data = {"name": "Test", "url": address, "method": "POST", "json_data": {"text": "{{subject}}: {{body}}"}}
    document = {"name": "team", "block_schema_id": schemas[0]["id"], "block_type_id": block_type["id"], "data": data}
    action = {
        "type": "send-notification",
        "block_document_id": server.ask("block_documents/", document)["id"],
        "subject": "{{ flow.name }}: {{ flow_run.name }} {{ flow_run.state.name }}",
        "body": "{{ flow_run.state.message }}",
    }
    trigger = {"type": "event", "posture": "Reactive", "expect": ["prefect.flow-run.Failed"], "threshold": 1}
    server.ask("automations/", {"name": "failed runs", "trigger": trigger, "actions": [action]})
    small.control("notified", prepare={"fails": 9, "sentence": "data.path: it is not there."})
    assert server.run(name="notified", stages=["prepare"], overrides=["seeds=[12]"])["type"] == "FAILED"
    notice = wait_for(lambda: next((each["text"] for each in received if "notified: " in each["text"]), None))
    assert notice.startswith("vit-vs-cnn: notified: prepare Failed: ")
    assert "data.path: it is not there." in notice


def test_a_tune_worker_says_that_there_is_no_study(server: Server) -> None:
    body = {"parameters": {"contestant": "vit"}, "state": {"type": "SCHEDULED"}}
    deployment = server.deployment("tune-worker")["id"]
    state = server.end(server.ask(f"deployments/{deployment}/create_flow_run", body)["id"])
    assert state["message"].startswith("vit: no study to join in sqlite:////")


def test_what_is_retryable_is_tried_again(server: Server) -> None:
    small = server.small
    small.control("passing", eda={"fails": 2, "sentence": "the hub is unreachable.", "retryable": True})
    assert server.run(name="passing", stages=["eda"], overrides=["seeds=[11]"])["type"] == "COMPLETED"
    assert small.started("passing") == ["prepare", "eda", "eda", "eda"]


def test_bad_parameters_fail_the_run_in_one_sentence(server: Server) -> None:
    state = server.run(overrides=["train.epochs=many"])
    assert state["type"] == "FAILED"
    assert state["message"].startswith("params.yaml: train.epochs: input should be a valid integer")


def test_runs_at_once_keep_apart_and_share_the_accelerator(server: Server) -> None:
    """FLOW_RUNS=50 is the whole measure; the worker runs four of them at a time."""
    small = server.small
    names = [f"many-{index}" for index in range(int(os.environ.get("FLOW_RUNS", "2")))]
    for name in names:
        small.control(name, train_vit={"seconds": 1}, train_resnet={"seconds": 1}, eda={"seconds": 2})
    flow_runs = [server.submit(name=name, overrides=[f"seeds=[{seed}]"]) for seed, name in enumerate(names, start=100)]
    ends = [server.end(flow_run, max(600, 60 * len(names)))["type"] for flow_run in flow_runs]
    assert ends == ["COMPLETED"] * len(names)
    assert {*names} <= set(small.experiments().split())
    assert small.git("status", "--short") == ""
    spans = []
    for seed, name in enumerate(names, start=100):
        assert f"seeds:\n- {seed}\n" in (small.root / "runs" / name / "params.yaml").read_text()
        assert len(small.history(name, "end")) == 5
        for stage in ("train-vit", "train-resnet"):
            times = [fact["time"] for fact in small.history(name) if fact["stage"] == stage]
            spans.append((times[0], times[-1]))
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    logs = server.ask("logs/filter", {"logs": {"level": {"ge_": 30}, "flow_run_id": {"any_": flow_runs}}})
    assert logs == []
    assert "database is locked" not in (small.root / ".vit-vs-cnn/logs/worker.log").read_text()
    running = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED"]}}}}
    assert server.ask("flow_runs/count", running) == 0


def test_a_cancelled_run_ends_its_processes_and_continues_later(server: Server) -> None:
    small = server.small
    small.control("cancelled", train_vit={"hold": True, "child": 1}, train_resnet={"hold": True})
    flow_run = server.submit(name="cancelled", overrides=["seeds=[8]"])
    training = wait_for(lambda: [fact for fact in small.history("cancelled") if fact["stage"].startswith("train")])
    tree = [psutil.Process(training[0]["pid"]), *psutil.Process(training[0]["pid"]).children(recursive=True)]
    server.ask(f"flow_runs/{flow_run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    _, alive = psutil.wait_procs(tree, timeout=300)
    assert alive == []
    assert server.end(flow_run)["type"] == "CANCELLED"
    wait_for(lambda: server.ask(f"v2/concurrency_limits/accelerator-{socket.gethostname()}")["active_slots"] == 0)
    small.control("cancelled")
    assert server.run(name="cancelled", overrides=["seeds=[8]"])["type"] == "COMPLETED"
    assert small.started("cancelled").count("prepare") == 1


def test_a_killed_worker_comes_back_and_its_run_has_crashed_and_continues(server: Server) -> None:
    small = server.small
    small.control("killed", train_vit={"hold": True}, train_resnet={"hold": True})
    flow_run = server.submit(name="killed", overrides=["seeds=[9]"])
    wait_for(lambda: [fact for fact in small.history("killed") if fact["stage"].startswith("train")])
    worker = next(process for process in small.processes() if "vit_vs_cnn.orchestration.worker" in process.cmdline())
    for process in [*worker.children(recursive=True), worker]:
        with suppress(psutil.NoSuchProcess):  # what was ending by itself
            process.kill()
    assert server.end(flow_run)["type"] == "CRASHED"
    wait_for(lambda: "Running" not in (states := server.task_states(flow_run).values()) and "Crashed" in states)
    small.control("killed")
    # The slot of the dead stage is Prefect's to free: its lease is one minute long.
    assert server.end(server.submit(name="killed", overrides=["seeds=[9]"]), 600)["type"] == "COMPLETED"
    assert small.started("killed").count("prepare") == 1
    assert "worker died; starting it again" in server.log.read_text()


def test_ctrl_c_ends_a_run_with_its_processes(server: Server) -> None:
    small = server.small
    small.control("interrupted", prepare={"hold": True, "child": 1})
    run = subprocess.Popen(
        in_background(small.command("run", "--name", "interrupted", "--set", "seeds=[13]")),
        cwd=small.root,
        env=small.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    pid = wait_for(lambda: small.history("interrupted"))[0]["pid"]
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    run.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(tree, timeout=300)
    assert alive == []
    _, said = run.communicate(timeout=300)
    assert run.returncode == 130
    assert said.strip().splitlines()[-1] == "stopped; run the same command again to resume."


def test_sigterm_ends_a_run_that_waits_for_an_accelerator_and_leaves_the_one_that_has_it(server: Server) -> None:
    small = server.small
    small.control("holds", train_vit={"hold": True})
    commands = [
        small.command("run", "--name", name, "--set", f"seeds=[{seed}]", "--stage", "train@vit")
        for seed, name in enumerate(("holds", "waits"), start=21)
    ]
    holds = subprocess.Popen(commands[0], cwd=small.root, env=small.environment())
    wait_for(lambda: "train-vit" in small.started("holds"))
    waits = subprocess.Popen(
        in_background(commands[1]),
        cwd=small.root,
        env=small.environment(),
        stdout=subprocess.PIPE,
        bufsize=1,
        text=True,
    )
    assert waits.stdout is not None
    assert any("waiting: 1 of 1 slots of accelerator-" in line for line in waits.stdout)
    waits.send_signal(signal.SIGTERM)
    waits.communicate()
    assert waits.returncode == 143
    assert holds.poll() is None
    small.control("holds")
    assert holds.wait(300) == 0
    assert small.started("waits") == ["prepare"]


def test_a_server_that_is_named_but_does_not_answer_is_one_sentence(small: SmallProject) -> None:
    environment = small.environment() | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    answer = subprocess.run(
        small.command("run"), cwd=small.root, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert answer.stderr == (
        "error: PREFECT_API_URL: no server answers at http://127.0.0.1:9/api: start it, or unset the variable.\n"
    )


def test_what_a_killed_run_left_is_found_and_removed(server: Server) -> None:
    small = server.small
    small.control("left", prepare={"hold": True})
    before = {process.pid for process in small.processes()}
    run = subprocess.Popen(
        small.command("run", "--name", "left", "--set", "seeds=[10]"), cwd=small.root, env=small.environment()
    )
    wait_for(lambda: small.started("left"))
    run.kill()
    run.wait()
    wait_for(lambda: {process.pid for process in small.processes()} <= before)
    left = small.root / "runs" / "left"
    assert left.is_dir()
    command = small.command("doctor", "--fix")
    answer = subprocess.run(
        command, cwd=small.root, env=small.environment(), capture_output=True, text=True, check=False
    )
    done = answer.stdout
    assert "fixed  run left: its workspace is removed" in done
    assert not left.exists()
    assert "left" not in small.git("worktree", "list")
    # `doctor` or the watch of `up` said so, whichever came first.
    wait_for(lambda: _states_by_name(server)["left"] == "CRASHED")


def _states_by_name(server: Server) -> dict[str, str]:
    return {run["name"]: run["state"]["type"] for run in server.ask("flow_runs/filter", {})}


def test_run_uses_the_running_server_and_forces_and_chooses_stages(server: Server) -> None:
    small = server.small
    said = small.call("run", "--name", "first", "--preset", "other", "--stage", "eda", "--force", "prepare")
    assert small.started("first").count("prepare") == 2
    assert said.startswith("2 of 2 stages run, about ")
    assert re.search(r"^  prepare  .* it is forced$", said, re.MULTILINE)
    assert re.search(r"^prepare +\d+\.\d s  prepare says hello$", said, re.MULTILINE)
    assert "Running stage" not in said
    assert "first: eda" in _states_by_name(server)
    verbose = ("run", "--in-place", "--stage", "prepare", "--force", "prepare", "--verbose")
    assert "Running stage 'prepare'" in small.call(*verbose)
    assert (small.root / "out/prepare").is_file()
    assert small.git("status", "--short") == "?? dvc.lock"
    (small.root / "dvc.lock").unlink()


def test_run_prints_one_json_object_for_scripts_and_as_many_lines_for_people_as_they_want(server: Server) -> None:
    small = server.small

    def run(*options: str) -> tuple[str, str]:
        command = small.command("run", "--name", "printed", "--set", "seeds=[31]", *options)
        answer = subprocess.run(
            command, cwd=small.root, env=small.environment(), capture_output=True, text=True, check=True
        )
        return answer.stdout, answer.stderr

    planned, _ = run("--dry-run", "--json")
    assert [stage["cached"] for stage in json.loads(planned)["stages"]] == [False] * 5
    found, lines = run("--json")
    record = json.loads(found)
    assert (record["name"], record["workspace"]) == ("printed", str(small.root / "runs/printed"))
    assert sorted(record["ran"]) == ["compare", "eda", "prepare", "train@resnet", "train@vit"]
    assert (record["cached"], record["answer"], record["contestants"]) == ([], None, [])
    assert re.search(r"^train@vit +\d", lines, re.MULTILINE)
    assert run("--force", "eda", "--quiet") == ("", "")
    everything, _ = run("--force", "eda", "-v")
    assert "eda                 eda says hello" in everything
    assert json.loads(run("--json")[0])["ran"] == []


def test_what_is_old_is_removed(server: Server) -> None:
    small = server.small
    small.call("run", "--name", "young", "--stage", "prepare", "--set", "seeds=[14]")
    small.git("worktree", "add", "--detach", "runs/old")
    long_ago = 1_000_000_000
    os.utime(small.root / "runs/old/params.yaml", (long_ago, long_ago))
    output = small.call("clean", "--days", "1", "--yes")
    assert "1 workspaces, 0 checkpoints" in output
    assert not (small.root / "runs/old").exists()
    assert (small.root / "runs/young/out/prepare").is_file()
    small.call("clean", "--days", "0", "--yes")
    assert not (small.root / "runs/young").exists()


def test_the_server_removes_old_flow_runs(server: Server) -> None:
    old, young = server.submit(name="old", stages=["prepare"]), server.submit(name="recent", stages=["prepare"])
    states = [server.end(flow_run) for flow_run in (old, young)]
    assert [state["type"] for state in states] == ["COMPLETED", "COMPLETED"], states
    with closing(sqlite3.connect(server.small.root / ".vit-vs-cnn/prefect/prefect.db", timeout=60)) as database:
        changed = database.execute("UPDATE flow_run SET end_time = '2020-01-01 00:00:00.000000' WHERE id = ?", [old])
        assert changed.rowcount == 1
        database.commit()
    ids = lambda: {flow_run["id"] for flow_run in server.ask("flow_runs/filter", {})}  # noqa: E731
    wait_for(lambda: old not in ids())
    assert young in ids()


def test_the_folder_may_move_and_a_switched_schedule_stays(server: Server) -> None:
    small = server.small
    nightly = server.deployment("nightly")
    schedule = nightly["schedules"][0]["id"]
    server.ask(f"deployments/{nightly['id']}/schedules/{schedule}", {"active": True}, "PATCH")
    server.stop()
    assert small.processes() == []
    assert not (small.root / ".vit-vs-cnn/mlflow.url").exists()
    moved = small.root.with_name("moved")
    small.root.rename(moved)
    small.root = moved
    server.start()
    assert server.deployment("nightly")["schedules"][0]["active"]
    assert server.run(name="moved", stages=["prepare"])["type"] == "COMPLETED"
    assert (moved / "runs/moved/out/prepare").is_file()


@pytest.fixture
def tiny_registry(server: Server, small: SmallProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The small project's registered model with two versions, in the store that its MLflow server shows."""
    monkeypatch.chdir(small.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    paths.project_root.cache_clear()
    paths.main_root.cache_clear()
    registry = new_registry()
    for wrong in (40, 20):
        add_version(parse_settings(TINY), registry, range(wrong))
    yield registry
    paths.project_root.cache_clear()
    paths.main_root.cache_clear()


def test_a_person_approves_a_promotion_in_the_form_of_the_paused_run(server: Server, tiny_registry: Registry) -> None:
    unattended = server.run_of("promote", version="1", unattended=True)
    assert unattended["message"] == "tiny-classifier: version 1 is the champion now."

    asked = server.submit_to("promote", version="2")
    wait_for(lambda: server.state(asked)["type"] == "PAUSED")
    (gate,) = server.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [asked]}}})
    assert "| accuracy beside the champion | pass |" in gate["data"]
    assert tiny_registry.aliases()[CHAMPION] == 1
    _resume(server, asked, approve=True, reason="")
    assert server.end(asked)["message"] == "tiny-classifier: version 2 is the champion now."
    assert tiny_registry.aliases()[CHAMPION] == 2

    worse = server.submit_to("promote", version="1")
    wait_for(lambda: server.state(worse)["type"] == "PAUSED")
    _resume(server, worse, approve=False, reason="no")
    assert server.end(worse)["name"] == "Declined"
    refused = server.run_of("promote", version="1", unattended=True)
    assert (refused["type"], refused["name"]) == ("FAILED", "Refused")
    assert tiny_registry.aliases()[CHAMPION] == 2
    with open_audit_log(tiny_registry) as log:
        actions = [decision.action for decision in log.decisions()]
    assert actions == ["promoted", "promoted", "declined", "refused"]


def _resume(server: Server, flow_run: str, **answer: object) -> None:
    """Answer a paused flow run; Prefect rejects that until it has the form, which follows the state."""
    wait_for(lambda: server.ask(f"flow_runs/{flow_run}/resume", {"run_input": answer})["status"] == "ACCEPT")
