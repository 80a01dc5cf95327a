"""deploy/compose.yaml as Docker Compose or Podman reads it, and what its services' git is told. Nothing is started."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from factories import REPOSITORY
from harness.compose import compose_services

FILES = ("compose.yaml", "compose.workers.yaml")


def _compose() -> list[str]:
    for command in (["docker", "compose"], ["podman", "compose"]):
        if shutil.which(command[0]):
            answer = subprocess.run([*command, "version"], capture_output=True, check=False)
            if answer.returncode == 0:
                return command
    return []


COMPOSE = _compose()
needs_compose = pytest.mark.skipif(not COMPOSE, reason="neither `docker compose` nor `podman compose` on this machine")


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    """The folder of the compose files, without a .env or secrets of this machine."""
    folder = tmp_path / "deploy"
    folder.mkdir()
    for name in FILES:
        shutil.copy(REPOSITORY / "deploy" / name, folder)
    return folder


def config(deploy: Path, *options: str, files: tuple[str, ...] = FILES[:1]) -> str:
    """What `docker compose config` prints, from the folder above, with the variables of deploy/.env alone."""
    variables = set(re.findall(r"\$\{(\w+)", "".join((deploy / name).read_text() for name in FILES)))
    environment = {key: value for key, value in os.environ.items() if key not in variables | {"COMPOSE_PROFILES"}}
    named = [part for name in files for part in ("--file", f"deploy/{name}")]
    answer = subprocess.run(
        [*COMPOSE, *named, "config", *options],
        cwd=deploy.parent, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@needs_compose
def test_compose_reads_its_files_with_and_without_variables(deploy: Path) -> None:
    config(deploy, "--quiet")
    config(deploy, "--quiet", files=FILES)
    (deploy / ".env").write_text("VIT_VS_CNN_GIT_URL=https://git.example.com/p.git\nMLFLOW_URL=https://m.example.com\n")
    config(deploy, "--quiet")
    read = config(deploy)
    assert "VIT_VS_CNN_GIT_URL: https://git.example.com/p.git\n" in read
    assert "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS: https://m.example.com\n" in read


@needs_compose
@pytest.mark.parametrize("profile", ["", "cpu", "gpu"])
def test_a_profile_has_one_worker(deploy: Path, profile: str) -> None:
    (deploy / ".env").write_text(f"COMPOSE_PROFILES={profile}\n")
    workers = {"": set(), "cpu": {"worker"}, "gpu": {"worker-gpu"}}[profile]
    assert {name for name in config(deploy, "--services").split() if name.startswith("worker")} == workers


@needs_compose
def test_databases_are_published_for_workers_elsewhere_alone(deploy: Path) -> None:
    (deploy / ".env").write_text("DATABASES_BIND=10.0.0.1\n")
    published = r"host_ip: (\S+)\n +target: (?:5432|8333)\n"
    assert re.findall(published, config(deploy)) == []
    assert re.findall(published, config(deploy, files=FILES)) == ["10.0.0.1", "10.0.0.1"]


def test_a_worker_s_git_has_the_secret_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    made = os.environ | {"SECRETS": str(secrets)}
    subprocess.run([REPOSITORY / "deploy/secrets.sh"], env=made, check=True)
    assert (secrets / "git_credentials").read_text() == ""
    (secrets / "git_credentials").write_text("https://bot:token@git.example.com\n")
    subprocess.run([REPOSITORY / "deploy/secrets.sh"], env=made, check=True)
    worker = compose_services()["worker"]
    assert "git_credentials" in worker["secrets"]
    told = {
        key: value.replace("$$", "$").replace("/run/secrets", str(secrets))
        for key, value in worker["environment"].items()
        if key.startswith("GIT_CONFIG_")
    }
    nobody = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}

    def credential(action: str, question: str) -> str:
        answer = subprocess.run(
            ["git", "credential", action],
            input=question, env=nobody | told, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert answer.stderr == ""
        return answer.stdout

    filled = credential("fill", "protocol=https\nhost=git.example.com\n\n")
    assert filled.splitlines()[2:] == ["username=bot", "password=token"]
    credential("approve", filled)
    credential("reject", filled)
    assert (secrets / "git_credentials").read_text() == "https://bot:token@git.example.com\n"
