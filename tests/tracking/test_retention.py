"""Old runs of the project's own store are deleted, unless something needs them."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.tracking.retention import OldRuns, delete_runs, find_old_runs
from vit_vs_cnn.tracking.run import read_ref, start_run
from vit_vs_cnn.tracking.store import tracking_uri

LONG_AGO = 1_000_000


class Store:
    """The project's store, in which runs are made that ended long ago."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self._folder, self.client = settings, folder, MlflowClient(tracking_uri())

    def run(self, name: str, *, parent: str | None = None, model: bool = False, **tags: str) -> str:
        """The id of a new run, whose key is its name."""
        folder = self._folder / name
        (folder / "files").mkdir(parents=True)
        (folder / "files" / "MLmodel").write_text("flavors: {}\n")
        with start_run(self.settings, name, key=name, parent=parent) as run:
            run.set_tags(tags)
            run.log_artifact(folder / "files", "files")
            if model:
                run.log_model(folder / "files", name, "image-classifier", {}, {}, step=1)
            run.write_ref(folder)
        run_id = read_ref(folder).run_id
        assert run_id is not None
        self.client.set_terminated(run_id, "FINISHED", end_time=LONG_AGO)
        return run_id

    def folders(self, run_id: str) -> list[Path]:
        """Where the files of a run and of its model are."""
        run = self.client.get_run(run_id)
        artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
        (output,) = run.outputs.model_outputs
        return [artifacts, artifacts.parents[1] / "models" / output.model_id / "artifacts"]

    def names(self) -> set[str]:
        """The names of all runs that there are, also of those in the trash."""
        experiments = [found.experiment_id for found in self.client.search_experiments(ViewType.ALL)]
        return {run.info.run_name for run in self.client.search_runs(experiments, "", ViewType.ALL)}


@pytest.fixture
def store(settings: Settings, project: Path, tmp_path: Path) -> Store:
    return Store(settings, tmp_path / "made")


def test_what_is_old_and_needed_by_nothing_is_deleted_with_its_files_and_all_else_stays(store: Store) -> None:
    client = store.client
    registered = store.run("registered", model=True)
    (output,) = client.get_run(registered).outputs.model_outputs
    client.create_registered_model("tiny-classifier")
    client.create_model_version("tiny-classifier", f"models:/{output.model_id}", registered)
    client.delete_logged_model(output.model_id)  # by a person, whom MLflow does not warn
    store.run("comparison-of-it", **{"run.vit": registered})
    store.run("comparison-by-key", **{"run.vit": "registered"})
    store.run("of-a-report")
    store.run("its-parent")
    store.run("its-child", parent="its-parent")
    store.run("its-other-child", parent="its-parent")
    old = store.run("old", model=True)
    store.run("comparison-of-old", **{"run.vit": old})
    client.delete_run(store.run("half-deleted"))  # by a command that was killed then
    experiment = client.get_run(old).info.experiment_id
    history = client.create_experiment("tiny-classifier-history")
    mine = [client.create_run(where, 0, run_name="not-a-stages") for where in (experiment, history)]
    for run in mine:
        client.set_terminated(run.info.run_id, end_time=LONG_AGO)
    trashed = client.create_experiment("trashed")
    client.create_run(trashed, 0, run_name="in-the-trash")
    client.delete_experiment(trashed)
    before = store.names()

    files = store.folders(old)
    found = find_old_runs(30, {"of-a-report", "its-child"})
    assert len(set(found.run_ids)) == len(found.run_ids) == 3
    assert all(folder.is_dir() for folder in files)
    assert 2 * len("flavors: {}\n") < found.size < 100_000
    delete_runs(found.run_ids, found.model_ids)
    assert before - store.names() == {"old", "comparison-of-old", "half-deleted"}
    assert not any(folder.exists() for folder in files)
    assert client.search_logged_models([experiment]) == []
    assert all(folder.is_dir() for folder in store.folders(registered))
    assert client.get_experiment(trashed).lifecycle_stage == "deleted"
    assert client.download_artifacts(registered, "files/MLmodel")


def test_what_is_young_or_runs_or_lies_in_another_store_stays(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.run("young")
    assert find_old_runs(30, set()).run_ids == (run,)
    store.client.set_terminated(run, "FINISHED")
    assert find_old_runs(30, set()) == OldRuns()
    store.client.set_terminated(run, "FINISHED", end_time=LONG_AGO)
    store.client.update_run(run, status="RUNNING")
    assert find_old_runs(30, set()) == OldRuns()
    store.client.update_run(run, status="FINISHED")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd()}/mlruns/../mlruns/mlflow.db")
    assert find_old_runs(30, set()) == OldRuns()
