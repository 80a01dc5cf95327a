"""A run's workspace: what of the project is in it, and whose cache it uses."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from dvc.config import Config

from factories import REPOSITORY
from vit_vs_cnn.config.load import read_settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.process import ProcessIdentity
from vit_vs_cnn.orchestration.active_runs import ActiveRun, active_runs
from vit_vs_cnn.orchestration.request import Request, read_request
from vit_vs_cnn.orchestration.workspace import open_run, remove_workspace, run_environment


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def committed(project: Path) -> Path:
    (project / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(REPOSITORY / ".dvc" / name, project / ".dvc")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "start")
    return project


def test_a_workspace_has_what_is_uncommitted_and_folders_from_elsewhere_as_links(
    committed: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.png").touch()
    (committed / "photos").symlink_to(photos)
    git(committed, "init", "--quiet", "inner")
    (committed / "inner" / "file").touch()
    (committed / "new.txt").write_text("new")
    for _ in range(2):
        with open_run(Request(name="x")) as run:
            assert (run.workspace / "new.txt").read_text() == "new"
            assert (run.workspace / "photos").readlink() == photos
            assert (run.workspace / "inner" / "file").exists()


def test_untracked_code_is_copied_and_a_folder_of_images_is_linked(committed: Path) -> None:
    for name, count in (("images/cat", 501), ("package", 3)):
        (committed / name).mkdir(parents=True)
        for number in range(count):
            (committed / name / f"{number}.txt").write_text("x")
    (committed / "big.bin").write_bytes(bytes(21 * 2**20))
    (committed / "small.bin").write_bytes(b"x")
    for _ in range(2):
        with open_run(Request(name="x")) as run:
            assert (run.workspace / "images").is_symlink()
            assert (run.workspace / "images/cat/500.txt").read_text() == "x"
            assert (run.workspace / "package/2.txt").is_file()
            assert not (run.workspace / "package").is_symlink()
            assert (run.workspace / "big.bin").readlink() == committed / "big.bin"
            assert (run.workspace / "small.bin").read_bytes() == b"x"
            assert not (run.workspace / "small.bin").is_symlink()
    (committed / "images/cat/500.txt").unlink()
    with open_run(Request(name="x")) as run:
        assert not (run.workspace / "images").is_symlink()
        assert len(list((run.workspace / "images/cat").iterdir())) == 500


def test_a_file_that_was_linked_is_copied_once_git_tracks_it_or_it_is_small(committed: Path) -> None:
    for name in ("tracked.bin", "shrinks.bin"):
        (committed / name).write_bytes(bytes(21 * 2**20))
    with open_run(Request(name="x")) as run:
        assert (run.workspace / "tracked.bin").is_symlink()
        assert (run.workspace / "shrinks.bin").is_symlink()
    git(committed, "add", "tracked.bin")
    (committed / "shrinks.bin").write_bytes(b"x")
    with open_run(Request(name="x")) as run:
        for name, size in (("tracked.bin", 21 * 2**20), ("shrinks.bin", 1)):
            assert not (run.workspace / name).is_symlink()
            assert (run.workspace / name).stat().st_size == (committed / name).stat().st_size == size


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such names")
def test_a_workspace_has_files_whose_names_are_not_utf_8(committed: Path) -> None:
    (committed / "caf\udce9.txt").write_text("latin1")
    with open_run(Request(name="x")) as run:
        assert (run.workspace / "caf\udce9.txt").read_text() == "latin1"


@pytest.mark.parametrize(("setting", "expected"), [("", ".dvc/cache"), ("[cache]\n    dir = ../shared\n", "shared")])
def test_a_workspace_shares_the_cache_of_the_project(committed: Path, setting: str, expected: str) -> None:
    (committed / ".dvc" / "config.local").write_text(setting)
    with open_run(Request(name="x")) as run:
        assert Config(str(run.workspace / ".dvc"))["cache"]["dir"] == str((committed / expected).resolve())


def test_a_dvc_configuration_that_cannot_be_read_is_one_sentence(committed: Path) -> None:
    (committed / ".dvc" / "config.local").write_text("[cache\n")
    with pytest.raises(UserError, match="DVC cannot read its configuration"), open_run(Request(name="x")):
        pass


def test_weights_named_relative_to_the_project_are_found_in_a_workspace(committed: Path) -> None:
    (committed / "weights").mkdir()
    (committed / "weights" / "vit.safetensors").touch()
    request = Request(overrides=("models.vit.weights=weights/vit.safetensors",))
    _, settings = read_request(request)
    assert settings.models["vit"].weights == "weights/vit.safetensors"
    with open_run(request) as run:
        command = f"vit-vs-cnn run --name {run.name} --set models.vit.weights=weights/vit.safetensors"
        assert run_environment(run)["VIT_VS_CNN_COMMAND"] == command
        written = read_settings(run.workspace / "params.yaml").models
        assert written["vit"].weights == str(committed / "weights" / "vit.safetensors")
        assert written["resnet"].weights is None


def test_images_that_dvc_keeps_are_checked_out(committed: Path) -> None:
    (committed / "photos" / "cat").mkdir(parents=True)
    (committed / "photos" / "cat" / "1.png").write_text("one")
    subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", "photos"], check=True)
    request = Request(name="x", overrides=("data.source=folder", "data.path=photos"))
    with open_run(request) as run:
        assert read_settings(run.workspace / "params.yaml").data.path == "photos"
        assert (run.workspace / "photos/cat/1.png").read_text() == "one"
    shutil.rmtree(committed / ".dvc/cache")
    shutil.rmtree(run.workspace / "photos")
    with pytest.raises(UserError, match=r"photos: DVC cannot check it out .*`dvc pull photos\.dvc`"), open_run(request):
        pass


def admin_of(workspace: Path) -> Path:
    """The folder in which git keeps the state of a worktree."""
    return Path((workspace / ".git").read_text().removeprefix("gitdir: ").strip())


@pytest.mark.parametrize("left", ["index.lock", "HEAD.lock", "locked", "no HEAD", "no files", "no checkout"])
def test_what_a_killed_git_left_does_not_stop_the_next_start(committed: Path, left: str) -> None:
    with open_run(Request(name="x")) as run:
        (run.workspace / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    admin = admin_of(committed / "runs/x")
    match left:
        case "locked":  # while the worktree was made
            (admin / "locked").write_text("initializing")
            shutil.rmtree(run.workspace)
        case "no HEAD":
            (admin / "HEAD").unlink()
        case "no files":
            shutil.rmtree(admin)
        case "no checkout":
            (run.workspace / ".git").unlink()
        case _:
            (admin / left).touch()
    with open_run(Request(name="x")) as run:
        git(run.workspace, "status")
        assert (run.workspace / "dvc.yaml").is_file()
        assert left == "locked" or (run.workspace / "dvc.lock").read_text().startswith("schema")
        git(run.workspace, "checkout", "--quiet", "--detach", "HEAD")
    remove_workspace(run.workspace)
    assert not (committed / ".git/worktrees/x").exists()


def test_a_killed_flow_run_stays_known_until_another_flow_run_replaces_it(committed: Path) -> None:
    here, workspace = ProcessIdentity.current(), committed / "runs" / "x"
    killed = ActiveRun(
        name="x", workspace=workspace, process=replace(here, start=here.start - 60), flow_run_id="killed"
    )
    killed.save()
    with open_run(Request(name="x")):  # as a preview does
        assert [run.flow_run_id for run in active_runs(dead=False)] == [None]
    assert (active_runs(dead=True), active_runs(dead=False)) == ([killed], [])
    with open_run(Request(name="x"), "next"):
        assert [run.flow_run_id for run in active_runs(dead=False)] == ["next"]
    assert active_runs(dead=True) == []


def test_what_a_run_in_place_cannot_change_is_refused(project: Path) -> None:
    with (
        pytest.raises(UserError, match=r"in place, params\.yaml runs as it stands"),
        open_run(Request(in_place=True, name="x")),
    ):
        pass
