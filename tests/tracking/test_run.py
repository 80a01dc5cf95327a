import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.tracking.outbox import outbox_dir
from vit_vs_cnn.tracking.run import add_to_run, flatten, read_ref, start_run, sync
from vit_vs_cnn.tracking.store import tracking_uri


def runs() -> list:  # type: ignore[type-arg]
    client = MlflowClient(tracking_uri())
    experiment = client.get_experiment_by_name("tiny")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def test_what_is_recorded_arrives_and_nothing_waits(settings: Settings, project: Path) -> None:
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
    assert MlflowClient(tracking_uri()).list_artifacts(found.info.run_id, "notes")[0].path == "notes/note.txt"
    assert not list(outbox_dir().glob("*"))


def test_a_store_that_is_away_loses_nothing_and_sync_sends_it(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with start_run(settings, "eda") as run:
        run.log_metrics({"x": 0.5})
        run.write_ref(project)
    assert read_ref(project).run_id is None
    assert "nothing is lost, `vit-vs-cnn sync` sends it later" in capsys.readouterr().err
    with add_to_run(read_ref(project), "evaluate") as more:
        more.log_metrics({"y": 0.25})
    with pytest.raises(UserError, match="2 runs stay in"):
        sync()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync() == (2, 0)
    (found,) = runs()
    assert found.data.metrics == {"x": 0.5, "y": 0.25}
    assert found.info.status == "FINISHED"
    assert sync() == (0, 0)


def test_a_store_that_fails_halfway_gets_the_rest_once(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"n": 0}
    log_batch = MlflowClient.log_batch

    def flaky(self: MlflowClient, *arguments: object, **more: object) -> object:
        calls["n"] += 1
        if calls["n"] in (2, 3):
            raise OSError("the line is down")
        return log_batch(self, *arguments, **more)

    monkeypatch.setattr(MlflowClient, "log_batch", flaky)
    with start_run(settings, "eda") as run:
        for step in range(4):
            run.log_metrics({"x": float(step)}, step=step)
        run.send()
    sync()
    (found,) = runs()
    history = MlflowClient(tracking_uri()).get_metric_history(found.info.run_id, "x")
    assert [(each.step, each.value) for each in history] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_run_that_fails_says_so_and_why(settings: Settings, project: Path) -> None:
    with pytest.raises(ValueError, match="broken"), start_run(settings, "eda"):
        raise ValueError("broken")
    (found,) = runs()
    assert found.info.status == "FAILED"
    assert found.data.tags["failure"] == "broken"


def test_a_dead_process_leaves_a_killed_run_after_sync(settings: Settings, project: Path) -> None:
    run = start_run(settings, "eda")
    run.log_metrics({"x": 1.0})
    run._journal.close()  # what the operating system does with a killed process's lock
    assert sync() == (1, 0)
    (found,) = runs()
    assert found.info.status == "KILLED"
    assert found.data.metrics == {"x": 1.0}


def test_a_line_torn_by_a_kill_is_dropped_and_the_run_goes_on(settings: Settings, project: Path) -> None:
    run = start_run(settings, "train", "vit", key="0" * 32)
    run.log_metrics({"x": 1.0}, step=1)
    events = run._journal.folder / "events.jsonl"
    with events.open("a") as file:
        file.write('{"kind": "metr')
    run._journal.close()
    with start_run(settings, "train", "vit", key="0" * 32) as again:
        again.log_metrics({"x": 2.0}, step=2)
    (found,) = runs()
    assert found.data.metrics == {"x": 2.0}
    assert found.info.status == "FINISHED"


def test_metrics_of_a_split_are_linked_to_model_and_data(settings: Settings, prepared: DatasetInfo) -> None:
    model = Path("model")
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}\n")
    with start_run(settings, "train", "vit") as run:
        run.log_model(model, "vit", "image-classifier", {"seed": 0}, {"timm": "x"}, step=1)
        run.send()
        run.write_ref(model)
    with add_to_run(read_ref(model), "evaluate") as more:
        more.log_dataset(prepared, "test", "testing")
        more.log_metrics({"test_accuracy": 0.9}, dataset=(prepared, "test"))
    client = MlflowClient(tracking_uri())
    (found,) = runs()
    logged = client.get_logged_model(found.outputs.model_outputs[0].model_id)
    (metric,) = logged.metrics
    assert (metric.key, metric.value, metric.dataset_name) == ("test_accuracy", 0.9, "tiny-test")


def test_a_store_that_cannot_be_written_is_like_one_that_is_away(
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


def test_a_foreign_run_json_is_one_sentence(project: Path) -> None:
    (project / "run.json").write_text(json.dumps({"run": 1}))
    with pytest.raises(UserError, match=r"run\.json: missing or not written by this version"):
        read_ref(project)


def test_flatten_names_nested_values_with_dots() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": None}}, "e": {}}) == {"a.b": "1", "a.c.d": "None", "e": "{}"}
