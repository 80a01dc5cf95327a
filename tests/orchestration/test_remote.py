"""Workers elsewhere: what the deployment asks for, and what a flow run keeps beyond its clone."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from factories import TINY
from harness.object_store import BUCKET, KEY, object_store, silent_store
from harness.small_project import SmallProject
from vit_vs_cnn.core.errors import TransientError, UserError
from vit_vs_cnn.data import object_store as object_store_module
from vit_vs_cnn.data.object_store import TIME_LIMITS
from vit_vs_cnn.orchestration.dag import read_dag
from vit_vs_cnn.orchestration.prefect_server import free_port
from vit_vs_cnn.orchestration.remote import deploy

PREPARE = """
import os
from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.orchestration.remote import prepare_clone
print(prepare_clone("clone")["directory"], os.getcwd(), state_dir(), os.environ["VIT_VS_CNN_STATE"], flush=True)
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


def test_a_stage_runs_the_code_of_the_clone_and_not_what_is_installed_here(tmp_path: Path) -> None:
    small = SmallProject(tmp_path)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(small.root), str(clone)], check=True)
    (clone / "src/vit_vs_cnn").mkdir(parents=True)
    (clone / "src/vit_vs_cnn/__init__.py").touch()
    (clone / "src/vit_vs_cnn/cli.py").write_text("def program():\n    print('of the clone')\n")
    stage = "import subprocess\nsubprocess.run(['vit-vs-cnn', 'train', 'vit'], check=True)"
    environment = small.environment() | {"VIT_VS_CNN_STATE": str(tmp_path / "state")}
    answer = subprocess.run(
        [sys.executable, "-c", PREPARE + stage],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.stdout.splitlines()[1:] == ["of the clone"], answer.stderr


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    with object_store() as found:
        yield found


@pytest.mark.parametrize(
    ("key", "in_the_remote", "sentence"),
    [
        (KEY, False, "no such bucket or object ("),
        (KEY, True, "no such bucket or object ("),
        ("other", False, "the store refuses this key ("),
    ],
)
def test_a_remote_that_is_not_there_ends_a_run_before_its_stages(
    store: dict[str, str], tmp_path: Path, key: str, in_the_remote: bool, sentence: str
) -> None:
    small = SmallProject(tmp_path)
    clone = tmp_path / "work" / "clone"
    subprocess.run(["git", "clone", "--quiet", str(small.root), str(clone)], check=True)
    lines = ["[core]", "remote = store", "['remote \"store\"']", "url = s3://nothing-here/dvc"]
    environment = {**small.environment(), "VIT_VS_CNN_STATE": str(tmp_path / "state")}
    if in_the_remote:
        lines += [f"endpointurl = {store['AWS_ENDPOINT_URL']}", f"access_key_id = {key}", "secret_access_key = secret"]
    else:
        environment |= store | {"AWS_ACCESS_KEY_ID": key}
    (clone / ".dvc/config").write_text("\n".join(lines))
    command = [sys.executable, "-c", PREPARE]
    answer = subprocess.run(command, cwd=clone.parent, env=environment, capture_output=True, text=True, check=False)
    said = answer.stderr.splitlines()[-1]
    assert said.startswith(f"vit_vs_cnn.core.errors.UserError: DVC's remote store: s3://nothing-here/dvc: {sentence}")


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


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_store_that_does_not_answer_is_one_sentence_when_the_pipeline_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_silent: bool
) -> None:
    small = SmallProject(tmp_path)
    settings = {**TINY, "data": {**TINY["data"], "path": "s3://bucket/pets"}}
    with (small.root / "params.yaml").open("w") as file:
        YAML().dump(settings, file)
    text = (small.root / "dvc.yaml").read_text()
    (small.root / "dvc.yaml").write_text(text.replace("deps: [stage.py]", "deps: [stage.py, '${data.path}']"))
    limits = {"connect_timeout": 0.2, "read_timeout": 0.2, "retries": {"total_max_attempts": 2}}
    monkeypatch.setattr(object_store_module, "_LIMITS", limits)
    with silent_store() as (variables, connections):
        if not is_silent:
            variables["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{free_port()}"
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(
            TransientError, match=r"^data\.path: s3://bucket/pets: the store cannot be read \(.*\); run the same"
        ):
            read_dag(small.root)
        assert connections() == (2 if is_silent else 0)


def test_dvc_has_limits_for_a_remote_in_a_store_unless_the_project_has_its_own(
    store: dict[str, str], tmp_path: Path
) -> None:
    small = SmallProject(tmp_path)
    clone = tmp_path / "work" / "clone"
    subprocess.run(["git", "clone", "--quiet", str(small.root), str(clone)], check=True)
    remote = f"[core]\nremote = store\n['remote \"store\"']\nurl = s3://{BUCKET}/dvc\nread_timeout = 77\n"
    (clone / ".dvc/config").write_text(remote)
    environment = {**small.environment(), **store, "VIT_VS_CNN_STATE": str(tmp_path / "state")}
    subprocess.run([sys.executable, "-c", PREPARE], cwd=clone.parent, env=environment, check=True)
    for limit, seconds in (("read_timeout", 77), ("connect_timeout", TIME_LIMITS["connect_timeout"])):
        command = [sys.executable, "-m", "dvc", "config", f"remote.store.{limit}"]
        answer = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=True)
        assert int(answer.stdout) == seconds
