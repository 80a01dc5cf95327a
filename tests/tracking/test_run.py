"""What runs record arrives in MLflow once, whatever happens to the store and to the process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.colours import PALETTE
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.tracking.delivery import sync
from vit_vs_cnn.tracking.outbox import outbox_dir
from vit_vs_cnn.tracking.run import TrackedRun, add_to_run, read_ref, start_run
from vit_vs_cnn.tracking.store import experiment, open_client, tracking_uri

KEY = "0" * 32


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")


def runs() -> list[Run]:
    client = MlflowClient(tracking_uri())
    experiment = client.get_experiment_by_name("tiny")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def text_of(run: Run, path: str) -> str:
    return Path(MlflowClient(tracking_uri()).download_artifacts(run.info.run_id, path)).read_text()


def kill(run: TrackedRun) -> None:
    """What the operating system does to a killed process: its locks are released."""
    run._outbox.close()


def fail(monkeypatch: pytest.MonkeyPatch, method: str, *, calls: Collection[int] = (1,), after: bool = False) -> None:
    """Let some calls of a method of MLflow's client fail, before they reach the store or after."""
    original: Callable[..., Any] = getattr(MlflowClient, method)
    made = []

    def flaky(self: MlflowClient, *arguments: Any, **more: Any) -> Any:
        made.append(method)
        if len(made) in calls and not after:
            raise OSError("the connection is lost")
        result = original(self, *arguments, **more)
        if len(made) in calls:
            raise OSError("the connection is lost")
        return result

    monkeypatch.setattr(MlflowClient, method, flaky)


def test_what_is_recorded_is_delivered_and_nothing_stays_pending(settings: Settings, project: Path) -> None:
    (project / "note.txt").write_text("hello")
    with start_run(settings, "eda") as run:
        run.log_params({"a": {"b": 1}})
        run.log_metrics({"x": 0.5}, step=3)
        run.log_artifact(project / "note.txt", "notes")
        run.write_ref(project)
    (found,) = runs()
    assert found.info.run_id == read_ref(project).run_id
    assert found.data.params == {"a.b": "1"}
    assert found.data.metrics == {"x": 0.5}
    assert text_of(found, "notes/note.txt") == "hello"
    assert not list(outbox_dir().glob("*"))


def test_an_unreachable_store_loses_nothing_and_sync_delivers_it(
    settings: Settings,
    project: Path,
    unreachable: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with start_run(settings, "eda") as run:
        run.log_metrics({"x": 0.5})
        run.write_ref(project)
    assert read_ref(project).run_id is None
    assert "nothing is lost, `vit-vs-cnn sync` delivers it later" in capsys.readouterr().err
    with add_to_run(project) as more:
        more.log_metrics({"y": 0.25})
    with pytest.raises(UserError, match="2 runs are pending in"):
        sync()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync() == (2, 0)
    (found,) = runs()
    assert found.data.metrics == {"x": 0.5, "y": 0.25}
    assert found.info.status == "FINISHED"
    assert sync() == (0, 0)


def test_an_unreachable_store_is_tried_at_the_start_and_at_the_end_only(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def unreachable_store(*_: object) -> None:
        attempts.append(1)
        raise OSError("no route to host")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "get_experiment_by_name", unreachable_store)
        with start_run(settings, "train", "vit") as run:
            for step in range(100):
                run.log_metrics({"x": float(step)}, step=step)
            run.log_artifact(project / "params.yaml")
    assert len(attempts) == 2
    assert sync() == (1, 0)


def test_artifacts_that_could_not_be_delivered_survive_their_sources(
    settings: Settings, prepared: DatasetInfo, unreachable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, model = Path("output"), Path("model")
    (output / "figures").mkdir(parents=True)
    (output / "figures" / "one.txt").write_text("first")
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}\n")
    with start_run(settings, "train", "vit") as run:
        run.log_artifact(output, "results")
        run.log_artifact(output / "figures" / "one.txt")
        run.log_model(model, "vit", "image-classifier", {}, {}, step=1)
        # What DVC does when the stage starts again, and `clean` to an old workspace.
        shutil.rmtree(output)
        shutil.rmtree(model)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync() == (1, 0)
    (found,) = runs()
    assert text_of(found, "results/figures/one.txt") == "first"
    assert text_of(found, "one.txt") == "first"
    assert "params.yaml" in {
        Path(file.path).name for file in MlflowClient().list_artifacts(found.info.run_id, "lineage")
    }
    logged = MlflowClient(tracking_uri()).get_logged_model(found.outputs.model_outputs[0].model_id)
    assert logged.status == "READY"
    assert not list(outbox_dir().glob("*"))


def test_a_reachable_store_has_an_artifact_at_once_and_no_copy_is_made(settings: Settings, project: Path) -> None:
    (project / "note.txt").write_text("hello")
    with start_run(settings, "eda") as run:
        run.log_artifact(project / "note.txt")
        assert text_of(runs()[0], "note.txt") == "hello"
        assert not list(outbox_dir().glob("*/files"))


def test_an_artifact_whose_upload_fails_is_delivered_at_the_end(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = project / "note.txt"
    note.write_text("hello")
    with start_run(settings, "eda") as run:
        fail(monkeypatch, "log_artifact")
        run.log_artifact(note)
        note.write_text("of another run")
    assert text_of(runs()[0], "note.txt") == "hello"
    assert not list(outbox_dir().glob("*"))


@pytest.mark.parametrize("after", [False, True])
def test_a_store_that_fails_halfway_gets_the_rest_and_everything_once(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    with start_run(settings, "eda") as run:
        fail(monkeypatch, "log_batch", calls=(3, 4), after=after)
        for step in range(4):
            run.log_metrics({"x": float(step)}, step=step)
    assert sync() == (1, 0)
    (found,) = runs()
    history = MlflowClient(tracking_uri()).get_metric_history(found.info.run_id, "x")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]
    assert found.info.status == "FINISHED"


@pytest.mark.parametrize(
    "method", ["create_logged_model", "log_model_artifacts", "finalize_logged_model", "log_outputs"]
)
@pytest.mark.parametrize("after", [False, True])
def test_a_model_whose_upload_fails_halfway_is_logged_once(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch, method: str, after: bool
) -> None:
    model = project / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}\n")
    with start_run(settings, "train", "vit") as run:
        fail(monkeypatch, method, after=after)
        run.log_model(model, "vit", "image-classifier", {}, {}, step=1)
    (found,) = runs()
    (logged,) = MlflowClient(tracking_uri()).search_logged_models([found.info.experiment_id])
    assert [output.model_id for output in found.outputs.model_outputs] == [logged.model_id]
    assert logged.status == "READY"


def test_a_run_that_fails_says_so_and_why(settings: Settings, project: Path) -> None:
    with pytest.raises(ValueError, match="broken"), start_run(settings, "eda"):
        raise ValueError("broken")
    (found,) = runs()
    assert found.info.status == "FAILED"
    assert found.data.tags["failure"] == "broken"


def test_a_run_that_was_stopped_and_is_resumed_to_its_end_says_no_reason_any_more(
    settings: Settings, project: Path
) -> None:
    with pytest.raises(KeyboardInterrupt), start_run(settings, "train", "vit", KEY):
        raise KeyboardInterrupt
    assert [(run.info.status, "failure" in run.data.tags) for run in runs()] == [("KILLED", True)]
    with start_run(settings, "train", "vit", KEY):
        pass
    assert [(run.info.status, "failure" in run.data.tags) for run in runs()] == [("FINISHED", False)]


def test_a_killed_process_leaves_a_killed_run_after_sync(settings: Settings, project: Path) -> None:
    run = start_run(settings, "eda")
    run.log_metrics({"x": 1.0})
    kill(run)
    assert sync() == (1, 0)
    (found,) = runs()
    assert found.info.status == "KILLED"
    assert found.data.metrics == {"x": 1.0}


def test_the_next_run_delivers_what_a_killed_process_left(settings: Settings, project: Path) -> None:
    kill(start_run(settings, "eda"))
    with start_run(settings, "prepare"):
        pass
    assert {run.info.run_name: run.info.status for run in runs()} == {"eda": "KILLED", "prepare": "FINISHED"}
    assert sync() == (0, 0)


RECORD_AND_WAIT = """
import time
from pathlib import Path
from factories import TINY
from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.tracking.run import start_run
with start_run(parse_settings(TINY), "train", "vit") as run:
    for step in range(100):
        run.log_metrics({"x": float(step)}, step=step)
    run.log_artifact(Path("note.txt"))
    print("recorded", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("reachable", [True, False])
def test_what_a_process_recorded_before_it_was_killed_is_delivered(
    project: Path, reachable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not reachable:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    note = project / "note.txt"
    note.write_text("hello")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RECORD_AND_WAIT]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "recorded" in process.stdout.readline()
        process.kill()
    note.unlink()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert sync() == (1, 0)
    (found,) = runs()
    history = MlflowClient(tracking_uri()).get_metric_history(found.info.run_id, "x")
    assert [metric.step for metric in history] == list(range(100))
    assert text_of(found, "note.txt") == "hello"
    assert found.info.status == "KILLED"


def test_sync_leaves_a_run_alone_that_a_process_is_recording(settings: Settings, project: Path) -> None:
    with start_run(settings, "eda") as run:
        assert sync() == (0, 0)
        run.log_metrics({"x": 1.0})
    assert runs()[0].info.status == "FINISHED"


def test_a_killed_run_is_resumed_without_the_line_torn_by_the_kill(settings: Settings, project: Path) -> None:
    run = start_run(settings, "train", "vit", key=KEY)
    run.log_metrics({"x": 1.0}, step=1)
    with (outbox_dir() / KEY / "events.jsonl").open("a") as file:
        file.write('{"kind": "metr')
    kill(run)
    with start_run(settings, "train", "vit", key=KEY) as again:
        again.log_metrics({"x": 2.0}, step=2)
    (found,) = runs()
    history = MlflowClient(tracking_uri()).get_metric_history(found.info.run_id, "x")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 2.0)]
    assert found.info.status == "FINISHED"


def test_a_run_that_sync_has_ended_as_killed_is_resumed_as_the_same_run(settings: Settings, project: Path) -> None:
    run = start_run(settings, "train", "vit", key=KEY)
    run.log_metrics({"x": 1.0}, step=1)
    kill(run)
    assert sync() == (1, 0)
    with start_run(settings, "train", "vit", key=KEY) as again:
        again.log_metrics({"x": 2.0}, step=2)
    (found,) = runs()
    assert found.data.metrics == {"x": 2.0}
    assert found.info.status == "FINISHED"


def test_a_run_that_is_resumed_with_other_parameters_keeps_those_that_it_began_with(
    settings: Settings, project: Path
) -> None:
    for epochs, more in ((1, {}), (2, {"seed": 0})):
        with start_run(settings, "train", "vit", key=KEY) as run:
            run.log_params({"epochs": epochs, **more})
            run.log_metrics({"x": 1.0}, step=epochs)
    (found,) = runs()
    assert found.data.params == {"epochs": "1", "seed": "0"}
    history = MlflowClient(tracking_uri()).get_metric_history(found.info.run_id, "x")
    assert [metric.step for metric in history] == [1, 2]
    assert not list(outbox_dir().glob("*"))


def test_a_child_run_is_delivered_below_its_parent_which_comes_first(settings: Settings, project: Path) -> None:
    with start_run(settings, "tune", "vit", key="1" * 32, part="trial-0", parent=KEY) as child:
        child.log_metrics({"x": 1.0})
        child.end("KILLED")
    assert runs() == []
    with start_run(settings, "tune", "vit", key=KEY):
        pass
    assert sync() == (0, 0)
    found = {run.info.run_name: run for run in runs()}
    assert found.keys() == {"tune-vit", "tune-vit-trial-0"}
    trial = found["tune-vit-trial-0"]
    assert trial.data.tags["mlflow.parentRunId"] == found["tune-vit"].info.run_id
    assert {run.data.tags["mlflow.runColor"] for run in found.values()} == {PALETTE[0]}
    assert (trial.info.status, trial.data.metrics) == ("KILLED", {"x": 1.0})


def test_metrics_of_a_split_are_linked_to_model_and_data(settings: Settings, prepared: DatasetInfo) -> None:
    model = Path("model")
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}\n")
    with start_run(settings, "train", "vit") as run:
        run.log_model(model, "vit", "image-classifier", {"seed": 0}, {"timm": "x"}, step=1)
        run.write_ref(model)
    with add_to_run(model) as more:
        dataset = more.log_dataset(prepared, "test", "testing")
        more.log_metrics({"test/accuracy": 0.9}, dataset=dataset)
    (found,) = runs()
    assert [data.dataset.name for data in found.inputs.dataset_inputs] == ["tiny-test"]
    logged = MlflowClient(tracking_uri()).get_logged_model(found.outputs.model_outputs[0].model_id)
    assert (logged.params, logged.tags["timm"]) == ({"seed": "0"}, "x")
    (metric,) = logged.metrics
    assert (metric.key, metric.value, metric.dataset_name) == ("test/accuracy", 0.9, "tiny-test")


def test_a_store_that_cannot_be_written_is_like_an_unreachable_one(
    settings: Settings, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project / "mlruns")
    (project / "mlruns").write_text("not a folder")
    with start_run(settings, "eda") as run:
        run.log_metrics({"x": 1.0})
    assert "nothing is lost" in capsys.readouterr().err
    (project / "mlruns").unlink()
    assert sync() == (1, 0)
    assert runs()[0].data.metrics == {"x": 1.0}


def test_a_run_json_that_is_not_valid_is_one_sentence(project: Path) -> None:
    (project / "run.json").write_text(json.dumps({"run": 1}))
    with pytest.raises(UserError, match=r"run\.json: was written by another version; `dvc checkout --force"):
        read_ref(project)


def test_an_experiment_that_was_deleted_in_mlflow_is_restored(
    settings: Settings, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with start_run(settings, "prepare") as run:
        run.log_params({"a": 1})
    client = open_client()
    client.delete_experiment(experiment(client, settings.data.name).experiment_id)
    with start_run(settings, "prepare") as run:
        run.log_params({"a": 2})
    assert "had been deleted in MLflow; it is restored" in capsys.readouterr().err
    found = client.get_experiment_by_name(settings.data.name)
    assert found is not None
    assert found.lifecycle_stage == "active"


def test_a_damaged_store_loses_nothing(settings: Settings, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = project / "mlruns/mlflow.db"
    sound = database.read_bytes()
    database.write_bytes(b"garbage" * 1000)
    with start_run(settings, "prepare") as run:
        run.log_params({"a": 1})
    assert "mlflow.db: is not an SQLite database" in capsys.readouterr().err
    with pytest.raises(UserError, match="is not an SQLite database"):
        sync()
    database.write_bytes(sound)
    assert sync() == (1, 0)
