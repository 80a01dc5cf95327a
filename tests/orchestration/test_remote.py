"""Workers elsewhere: what the deployment asks for, and what a flow run keeps beyond its clone."""

import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from factories import TINY
from harness.small_project import SmallProject
from vit_vs_cnn.core.errors import TransientError, UserError
from vit_vs_cnn.orchestration.dag import read_dag
from vit_vs_cnn.orchestration.prefect_server import free_port
from vit_vs_cnn.orchestration.remote import deploy

PREPARE = """
import os
from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.orchestration.remote import prepare_clone
print(prepare_clone("clone")["directory"], os.getcwd(), state_dir(), os.environ["VIT_VS_CNN_STATE"])
"""


@pytest.mark.parametrize("state", [None, "elsewhere"])
def test_a_clone_keeps_its_state_and_its_cache_in_a_folder_that_stays(tmp_path: Path, state: str | None) -> None:
    small = SmallProject(tmp_path)
    clone = tmp_path / "work" / "clone"
    subprocess.run(["git", "clone", "--quiet", str(small.root), str(clone)], check=True)
    environment = small.environment() | {"XDG_STATE_HOME": str(tmp_path / "home-state")}
    expected = tmp_path / "home-state" / "vit-vs-cnn" / "clone"
    if state:
        expected = tmp_path / state
        environment["VIT_VS_CNN_STATE"] = str(expected)
    answer = subprocess.run(
        [sys.executable, "-c", PREPARE], cwd=clone.parent, env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == [str(clone), str(clone), str(expected), str(expected)]
    assert expected.stat().st_mode & 0o777 == 0o700
    cache = [sys.executable, "-m", "dvc", "cache", "dir"]
    found = subprocess.run(cache, cwd=clone, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(expected / "cache")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, r"^PREFECT_API_URL, Prefect's server, is not set"),
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "^VIT_VS_CNN_GIT_URL, the repository that workers clone, is"),
        (
            {"PREFECT_API_URL": "http://127.0.0.1:9/api", "VIT_VS_CNN_GIT_URL": "here"},
            "^PREFECT_API_URL: no server answers at http://127.0.0.1:9/api",
        ),
    ],
)
def test_a_deployment_says_what_is_not_set_and_what_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    for name in ("PREFECT_API_URL", "VIT_VS_CNN_GIT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=sentence):
        deploy()


def test_a_store_that_does_not_answer_is_one_sentence_when_the_pipeline_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SmallProject(tmp_path)
    settings = {**TINY, "data": {**TINY["data"], "path": "s3://bucket/pets"}}
    with (small.root / "params.yaml").open("w") as file:
        YAML().dump(settings, file)
    text = (small.root / "dvc.yaml").read_text()
    (small.root / "dvc.yaml").write_text(text.replace("deps: [stage.py]", "deps: [stage.py, '${data.path}']"))
    variables = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (variables | {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        TransientError, match=r"^data\.path: s3://bucket/pets: the store cannot be read \(.*\); the same"
    ):
        read_dag(small.root)
