"""Machines and folders as they come: names in any script, few open files, no home, a strict umask, a moved project."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from factories import encoded, noise
from harness.forked_commands import Forks
from harness.real_project import ONE_CONTESTANT, real_project

NAME = "Größe & Maß (50 %) #1 «Bilder» 猫 "
FEW_FILES = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
STRICT = "import os; os.umask(0o077)\n"
HOMELESS = "import os; [os.environ.pop(name, None) for name in ('HOME', 'XDG_CONFIG_HOME', 'XDG_CACHE_HOME')]\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, forks: Forks, empty_store: Path) -> Path:
    """A project in a folder with a name of 200 characters, that has run once under a strict umask with few files."""
    parent = tmp_path_factory.mktemp("names")
    folder = parent / (NAME + "x" * (200 - len(NAME)))
    assert len(str(folder)) > 200
    real_project(folder, forks, empty_store, ("models.vit=null",))
    for stage in ONE_CONTESTANT:
        forks.call(folder, *stage, before=FEW_FILES + STRICT)
    forks.call(folder, "registry", "promote", "--force", "--reason", "the first", before=FEW_FILES + STRICT)
    return folder


def predicts(forks: Forks, project: Path, before: str = "") -> None:
    image = project.parent / "image.png"
    image.write_bytes(encoded(Image.fromarray(noise(16, 16))))
    answer = forks.call(project, "predict", str(image), before=before)
    assert "image.png" in answer.output


def test_a_folder_with_any_name_a_strict_umask_and_few_open_files(project: Path, forks: Forks) -> None:
    predicts(forks, project)
    left = [path for path in project.rglob("*") if "%20" in path.name or "%25" in path.name]
    assert left == []


def test_a_user_without_a_home(project: Path, forks: Forks) -> None:
    forks.call(project, "registry", "list", before=HOMELESS)
    forks.call(project, "evaluate", "resnet", before=HOMELESS)


def test_a_home_that_cannot_be_written(project: Path, forks: Forks) -> None:
    nowhere = {"HOME": "/dev/null", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}
    refused = forks.call(project, "register", code=2, environment=nowhere)
    assert refused.output.splitlines()[-1].startswith("error: /dev/null/.config")
    forks.call(project, "evaluate", "resnet", environment=nowhere)


def test_a_project_that_moves_still_has_its_artifacts(project: Path, forks: Forks) -> None:
    moved = project.with_name("moved")
    project.rename(moved)
    try:
        predicts(forks, moved)
        forks.call(moved, "evaluate", "resnet")
        client = MlflowClient(f"sqlite:///{moved}/mlruns/mlflow.db")
        for experiment in client.search_experiments():
            for run in client.search_runs([experiment.experiment_id]):
                assert str(moved) in run.info.artifact_uri
    finally:
        moved.rename(project)
