"""A store whose project was moved names the artifacts where they are; one whose artifacts are still there stays."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.tracking.relocation import follow_move
from vit_vs_cnn.tracking.run import start_run
from vit_vs_cnn.tracking.store import open_client


@pytest.fixture
def note(settings: Settings, project: Path) -> str:
    """The id of a run with the file note.txt."""
    (project / "note.txt").write_text("hello")
    with start_run(settings, "eda") as run:
        run.log_artifact(project / "note.txt")
        run.write_ref(project)
    (experiment,) = open_client().search_experiments(filter_string="name = 'tiny'")
    return str(open_client().search_runs([experiment.experiment_id])[0].info.run_id)


@pytest.mark.parametrize("name", ["other", "100 % größer #2", "project-2", "quote's"])
def test_artifacts_of_a_moved_project_open(project: Path, note: str, name: str, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / name
    moved.parent.mkdir()
    shutil.move(project / "mlruns", moved / "mlruns")
    follow_move(moved / "mlruns/mlflow.db")
    client = MlflowClient(f"sqlite:///{moved}/mlruns/mlflow.db")
    assert Path(client.download_artifacts(note, "note.txt")).read_text() == "hello"
    follow_move(moved / "mlruns/mlflow.db")
    assert client.get_run(note).info.artifact_uri.count("mlruns/artifacts") == 1


def test_a_copy_of_a_project_leaves_the_original_its_artifacts(project: Path, note: str, tmp_path: Path) -> None:
    before = open_client().get_run(note).info.artifact_uri
    shutil.copytree(project / "mlruns", tmp_path / "copy" / "mlruns")
    follow_move(tmp_path / "copy/mlruns/mlflow.db")
    client = MlflowClient(f"sqlite:///{tmp_path}/copy/mlruns/mlflow.db")
    assert client.get_run(note).info.artifact_uri == before
