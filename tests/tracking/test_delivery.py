"""What stages record is delivered by one process for the whole run, while they record it and afterwards."""

import http.server
import os
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from harness.small_project import wait_for
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.orchestration.prefect_server import free_port
from vit_vs_cnn.tracking import delivery
from vit_vs_cnn.tracking.delivery import DEFERRED_VARIABLE, Deliverer, Delivery, sync
from vit_vs_cnn.tracking.outbox import Header, Outbox, open_outbox, outbox_dir
from vit_vs_cnn.tracking.run import add_to_run, read_ref, start_run
from vit_vs_cnn.tracking.store import tracking_uri


@pytest.fixture
def deferred(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEFERRED_VARIABLE, "1")


def record(settings: Settings, runs: int) -> None:
    """Have so many runs in outboxes of their own."""
    for number in range(runs):
        with start_run(settings, "eda") as run:
            run.log_metrics({"x": float(number)})


def runs() -> list[Run]:
    client = MlflowClient(tracking_uri())
    experiment = client.get_experiment_by_name("tiny")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def test_a_run_is_in_the_store_while_it_is_recorded_and_whole_at_the_end(
    settings: Settings, project: Path, deferred: None
) -> None:
    (project / "note.txt").write_text("hello")
    with Deliverer(os.environ) as deliverer:
        with start_run(settings, "train", "vit") as run:
            run.log_metrics({"x": 1.0}, step=1)
            assert not runs()
            found = wait_for(runs)[0]
            wait_for(lambda: runs()[0].data.metrics == {"x": 1.0})
            assert found.info.status == "RUNNING"
            run.log_artifact(project / "note.txt")
            run.write_ref(project)
            (project / "note.txt").unlink()
        with add_to_run(project) as more:
            more.log_metrics({"y": 2.0})
        assert deliverer.finish() == ""
    (found,) = runs()
    assert read_ref(project).run_id == found.info.run_id
    assert found.data.metrics == {"x": 1.0, "y": 2.0}
    assert found.info.status == "FINISHED"
    assert [file.path for file in MlflowClient(tracking_uri()).list_artifacts(found.info.run_id)] == [
        "lineage", "note.txt"
    ]  # fmt: skip
    assert not list(outbox_dir().glob("*"))


def test_a_store_that_cannot_be_written_is_one_sentence_at_the_end_and_nothing_is_lost(
    settings: Settings, project: Path, deferred: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    with Deliverer(os.environ | unreachable) as deliverer:
        with start_run(settings, "eda") as run:
            run.log_metrics({"x": 1.0})
        sentence = deliverer.finish()
    assert sentence.startswith("the tracking store http://127.0.0.1:9 could not be written (")
    assert sentence.endswith("nothing is lost, `vit-vs-cnn sync` delivers it later.")
    assert sync() == (1, 0)
    assert runs()[0].data.metrics == {"x": 1.0}


def test_what_is_added_to_a_run_that_is_gone_does_not_keep_others_waiting(
    settings: Settings, project: Path, deferred: None
) -> None:
    with start_run(settings, "train", "vit") as run:
        run.write_ref(project)
    assert sync() == (1, 0)
    with start_run(settings, "train", "vit") as other:
        other.write_ref(project / "mlruns")
    # A run that nobody will ever deliver.
    (project / "run.json").write_text((project / "run.json").read_text().replace(read_ref(project).key, "f" * 32))
    with add_to_run(project) as lost:
        lost.log_metrics({"x": 1.0})
    with start_run(settings, "eda") as later:
        later.log_metrics({"y": 1.0})
    outcomes = Delivery().finish_all(deferred=True)
    assert sorted(outcome is None for outcome in outcomes) == [False, True, True]
    assert {run.info.run_name for run in runs()} == {"train-vit", "eda"}


def test_what_the_store_refuses_does_not_keep_others_waiting(settings: Settings, project: Path, deferred: None) -> None:
    with start_run(settings, "train", "vit") as refused:
        assert Delivery().finish_all(deferred=True) == [None]
        MlflowClient(tracking_uri()).delete_run(runs()[0].info.run_id)
        refused.log_metrics({"x": 1.0})
    with start_run(settings, "eda") as later:
        later.log_metrics({"y": 1.0})
    outcomes = Delivery().finish_all()
    assert [outcome is None for outcome in outcomes] == [False, True]
    assert [(run.info.run_name, run.data.metrics) for run in runs()] == [("eda", {"y": 1.0})]


def test_a_store_that_is_away_is_asked_once_for_all_that_is_pending(
    settings: Settings, project: Path, deferred: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(settings, runs=3)
    asked: list[str] = []

    def deliver(outbox: Outbox, client: MlflowClient) -> str:
        asked.append(outbox.header.key)
        raise ConnectionError("nobody answers")

    with monkeypatch.context() as away:
        away.setattr(delivery, "deliver", deliver)
        with pytest.raises(UserError, match=r"cannot be written \(nobody answers\); 3 runs are pending"):
            sync()
    assert len(asked) == 1
    assert sync() == (3, 0)


@pytest.mark.parametrize("answers", ["a missing file", "a refusal", "a refusal to user:secret@", "nothing"])
def test_of_a_store_that_answers_one_failure_does_not_keep_others_waiting(
    settings: Settings, project: Path, deferred: None, monkeypatch: pytest.MonkeyPatch, answers: str
) -> None:
    record(settings, runs=3)
    asked: list[str] = []

    def deliver(outbox: Outbox, client: MlflowClient) -> str:
        asked.append(outbox.header.key)
        if len(asked) > 1:
            return "id"
        raise FileNotFoundError("gone") if answers == "a missing file" else MlflowException("permission denied")

    monkeypatch.setattr(delivery, "deliver", deliver)
    with http.server.HTTPServer(("127.0.0.1", 0), _Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = free_port() if answers == "nothing" else server.server_port
        login = "user:secret@" if "user" in answers else ""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{login}127.0.0.1:{port}")
        outcomes = Delivery().finish_all()
        server.shutdown()
    assert len(asked) == (1 if answers == "nothing" else 3)
    assert [outcome is None for outcome in outcomes] == [False, *[answers != "nothing"] * 2]


class _Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 500)
        self.end_headers()


def test_a_run_that_is_resumed_alone_delivers_by_itself(
    settings: Settings, project: Path, deferred: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = start_run(settings, "train", "vit", "0" * 32)
    killed._outbox.close()  # what the operating system does to a killed process: its locks are released
    monkeypatch.delenv(DEFERRED_VARIABLE)
    with start_run(settings, "train", "vit", "0" * 32) as resumed:
        resumed.log_metrics({"x": 1.0})
    assert [run.data.metrics for run in runs()] == [{"x": 1.0}]


def test_a_run_whose_process_was_killed_ends_as_killed(settings: Settings, project: Path, deferred: None) -> None:
    run = start_run(settings, "train", "vit")
    run.log_metrics({"x": 1.0})
    run._outbox.close()  # what the operating system does to a killed process: its locks are released
    with Deliverer(os.environ) as deliverer:
        assert deliverer.finish() == ""
    (found,) = runs()
    assert (found.info.status, found.data.metrics) == ("KILLED", {"x": 1.0})


def test_a_record_that_the_disk_has_damaged_is_skipped_and_the_others_are_delivered(
    settings: Settings, project: Path, deferred: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with start_run(settings, "train", "vit") as run:
        run.log_metrics({"x": 1.0}, step=1)
        run.log_metrics({"y": 2.0}, step=1)
        run.log_metrics({"z": 3.0}, step=1)
    (events,) = outbox_dir().glob("*/events.jsonl")
    lines = events.read_bytes().splitlines(keepends=True)
    damaged = [b"\0" * (len(line) - 1) + b"\n" if b'"y"' in line else line for line in lines]
    events.write_bytes(b"".join(damaged))
    assert sync() == (1, 0)
    (found,) = runs()
    assert (found.data.metrics, found.info.status) == ({"x": 1.0, "z": 3.0}, "FINISHED")
    sentence = "a record is damaged and is skipped; the others are delivered."
    assert capsys.readouterr().err == f"warning: {events}: {sentence}\n"


def test_two_processes_that_deliver_the_same_run_deliver_it_once(
    settings: Settings, project: Path, deferred: None
) -> None:
    with start_run(settings, "train", "vit") as run:
        for step in range(20):
            run.log_metrics({"x": float(step)}, step=step)
        with Deliverer(os.environ) as first, Deliverer(os.environ) as second:
            assert (first.finish(), second.finish()) == ("", "")
    assert sync() == (1, 0)
    (found,) = runs()
    history = MlflowClient(tracking_uri()).get_metric_history(found.info.run_id, "x")
    assert [metric.step for metric in history] == list(range(20))


def test_the_lock_of_what_is_delivered_is_free_when_its_file_is_gone(project: Path) -> None:
    present: list[bool] = []

    class Watched(FileLock):
        def release(self, force: bool = False) -> None:
            present.append(Path(self.lock_file).exists())
            super().release(force)

    header = Header(key="x", experiment="tiny", name="eda", creates_run=True)
    open_outbox("x", header).close()
    lock = Watched(outbox_dir() / "x.lock")
    lock.acquire()
    Outbox(outbox_dir() / "x", lock).close(remove=True)
    assert present == [False]  # who waits for the lock would hold a file without a name
    assert list(outbox_dir().iterdir()) == []
    open_outbox("x", header).close(remove=True)
    assert list(outbox_dir().iterdir()) == []
