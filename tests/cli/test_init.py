"""A project of one's own: from the wheel, from a source archive without git, and after an update of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from factories import REPOSITORY
from vit_vs_cnn.cli.init import init
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.orchestration.project import (
    VERSION_FILE,
    installed_build,
    make_project,
    make_repository,
    refuse_other_version,
)
from vit_vs_cnn.orchestration.request import Request, read_request

COMMAND = "from vit_vs_cnn.cli import program; program()"


# Where the package is imported from, and whether its files that are no code are there.
TEMPLATES = """
from importlib.resources import files
from vit_vs_cnn.report.html import page_environment
for name in ("report.html.j2", "study.html.j2", "tuning.html.j2"):
    page_environment().get_template(name)
package = files("vit_vs_cnn")
others = ("serving/page.html", "registry/card.md.j2", "report/captions.yaml")
print(package.parent, all((package / name).is_file() for name in others))
"""


def call(folder: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def vit_vs_cnn(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return call(folder, sys.executable, "-c", COMMAND, *arguments)


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True).stdout


def test_the_wheel_makes_a_project_that_runs_until_another_build_is_installed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = git(REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard").split("\n")
    for name in filter(None, tracked):
        if not name.startswith(("tests/", "docs/", "benchmarks/")) and (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, source / name)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=source, check=True)
    wheel, target = next((source / "dist").glob("*.whl")), tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*install, "--target", str(target), str(wheel)], check=True)
    installed = {"PYTHONPATH": str(target), "PATH": f"{target / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def vit_vs_cnn(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return call(folder, "vit-vs-cnn", *arguments, **installed)

    made = vit_vs_cnn(tmp_path, "init", "pets")
    assert made.returncode == 0, made.stderr
    assert "vit-vs-cnn run --preset demo" in made.stdout
    pets = tmp_path / "pets"
    assert (pets / VERSION_FILE).read_text().strip() == installed_build()  # the repository's own
    assert git(pets, "status", "--short") == ""
    assert git(pets, "log", "--format=%s").startswith("vit-vs-cnn ")
    for name in ("params.yaml", "dvc.yaml", "presets", "studies", "flows", VERSION_FILE):
        assert (pets / name).exists()
    assert "src/" not in (pets / "dvc.yaml").read_text()

    shutil.copy(pets / "presets" / "debug.yaml", pets / "presets" / "mine.yaml")
    run = ("run", "--preset", "mine", "--set", "models.vit=null", "--json")
    ran = vit_vs_cnn(pets, *run)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout)
    assert [row["contestant"] for row in found["contestants"]] == ["resnet"]
    assert Path(found["report"]).is_file()
    assert found["registry"]["name"] == "debug-classifier"
    again = vit_vs_cnn(pets, *run, "--dry-run")
    assert all(stage["cached"] for stage in json.loads(again.stdout)["stages"])
    loaded = call(pets, sys.executable, "-c", TEMPLATES, **installed)
    assert loaded.stdout.split() == [str(target), "True"], loaded.stderr

    # Another build of the same version.
    with (target / "vit_vs_cnn" / "data" / "split.py").open("a") as code:
        code.write("# changed\n")
    refused = vit_vs_cnn(pets, *run, "--dry-run")
    assert refused.returncode == 2
    assert "was made for vit-vs-cnn " in refused.stderr
    assert vit_vs_cnn(pets, "init", ".").returncode == 0
    planned = vit_vs_cnn(pets, *run, "--dry-run")
    assert not any(stage["cached"] for stage in json.loads(planned.stdout)["stages"])


def test_a_source_archive_without_git_becomes_a_repository_of_its_own(tmp_path: Path) -> None:
    archive = tmp_path / "outer" / "vit-vs-cnn"
    make_project(archive)
    git(tmp_path / "outer", "init", "--quiet")
    before = sorted(archive.rglob("*"))
    planned = vit_vs_cnn(archive, "run", "--preset", "demo", "--dry-run")
    assert planned.returncode == 2
    assert "the run would make it one, commit its files and run its stages; nothing changed" in planned.stderr
    assert sorted(archive.rglob("*")) == before
    answer = vit_vs_cnn(archive, "run", "--preset", "nonsense")
    assert answer.returncode == 2
    assert "is no git repository of its own" in answer.stderr
    assert "nonsense" in answer.stderr.splitlines()[-1]
    assert Path(git(archive, "rev-parse", "--show-toplevel").strip()) == archive
    assert git(archive, "status", "--short") == ""
    assert "no git repository" not in vit_vs_cnn(archive, "run", "--preset", "nonsense").stderr


def test_an_update_replaces_what_is_the_packages_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pets = tmp_path / "pets"
    assert make_project(pets)
    make_repository(pets)
    for name in ("params.yaml", "dvc.yaml", "presets/mine.yaml", "flows/pipeline.py"):
        (pets / name).write_text("# mine\n")
    remote = [sys.executable, "-m", "dvc", "remote", "add", "--default", "store", "s3://bucket/dvc"]
    subprocess.run(remote, cwd=pets, check=True, capture_output=True)
    configured = (pets / ".dvc/config").read_text()
    assert "s3://bucket/dvc" in configured
    (pets / VERSION_FILE).write_text("0.0.1\n")
    monkeypatch.chdir(pets)
    with pytest.raises(UserError, match=rf"was made for vit-vs-cnn 0\.0\.1, .* `vit-vs-cnn init {pets}`"):
        read_request(Request(in_place=True))
    assert not make_project(pets)
    assert (pets / "params.yaml").read_text() == (pets / "presets/mine.yaml").read_text() == "# mine\n"
    assert (pets / ".dvc/config").read_text() == configured
    assert "stages:" in (pets / "dvc.yaml").read_text()
    assert (pets / "flows/pipeline.py").read_text() == (REPOSITORY / "flows/pipeline.py").read_text()
    assert (pets / VERSION_FILE).read_text() != "0.0.1\n"


def test_commands_that_are_printed_for_a_folder_with_a_space_can_be_copied(tmp_path: Path) -> None:
    pets = tmp_path / "my pets"
    made = CliRunner().invoke(init, [str(pets)])
    assert made.exit_code == 0, made.output
    assert f"\n  cd '{pets}'\n" in made.output
    (pets / VERSION_FILE).write_text("0.0.1\n")
    with pytest.raises(UserError, match=re.escape(f"`vit-vs-cnn init '{pets}'`")):
        refuse_other_version(pets)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="is not empty and no vit-vs-cnn project"):
        make_project(tmp_path)
    with pytest.raises(UserError, match="is the package's own repository"):
        make_project(REPOSITORY)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
