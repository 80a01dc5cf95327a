"""What was not committed when a run began can be had back from the run."""

import shutil
import subprocess
from pathlib import Path

import pytest

from factories import REPOSITORY
from vit_vs_cnn.core.git import git_output
from vit_vs_cnn.tracking.lineage import DIRTY_TAG, commit_page, lineage_tags, uncommitted_changes, write_lineage


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    files = {
        "code.py": b"a = 1\n\n\nb = 2\n\n",
        "windows.txt": b"one\r\ntwo\r\n",
        "latin.txt": b"caf\xe9\n",
        "gone.py": b"x\n",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    git_output(folder, "init", "--quiet")
    commit(folder)
    monkeypatch.chdir(folder)
    return folder


def commit(folder: Path) -> None:
    git_output(folder, "add", "--all")
    git_output(folder, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "-m", "x")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_tracked_diff_turns_the_commit_into_the_files_of_the_run(repository: Path, tmp_path: Path) -> None:
    (repository / "code.py").write_bytes(b"a = 1\n\n\nb = 3\n\n")
    (repository / "windows.txt").write_bytes(b"one\r\nthree\r\n")
    (repository / "latin.txt").write_bytes(b"th\xe9\n")
    (repository / "binary.bin").write_bytes(bytes(range(256)))
    (repository / "new file.py").write_text("c = 4\n")
    (repository / "gone.py").unlink()
    git_output(repository, "add", "code.py")
    status = git_output(repository, "status", "--porcelain")
    write_lineage(tmp_path / "lineage")
    assert git_output(repository, "status", "--porcelain") == status

    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(repository), str(clone)], check=True)
    git_output(clone, "apply", "--whitespace=nowarn", str(tmp_path / "lineage/uncommitted.diff"))
    assert contents(clone) == contents(repository)
    assert not (tmp_path / "lineage/untracked.txt").exists()


def test_code_is_called_changed_and_parameters_and_what_dvc_writes_are_not(repository: Path) -> None:
    for name in ("params.yaml", "dvc.lock"):
        (repository / name).write_text("seeds: [1]\n")
    assert lineage_tags()[DIRTY_TAG] == "false"
    (repository / "code.py").write_bytes(b"a = 2\n")
    assert lineage_tags()[DIRTY_TAG] == "true"


def test_large_untracked_files_are_named_and_not_copied(repository: Path, tmp_path: Path) -> None:
    (repository / "photo.tif").write_bytes(bytes(2**20))
    write_lineage(tmp_path / "lineage")
    assert (tmp_path / "lineage/untracked.txt").read_text() == "photo.tif\n"
    assert (tmp_path / "lineage/uncommitted.diff").read_bytes() == b""


def test_variables_of_compose_are_neither_committed_nor_recorded(repository: Path) -> None:
    shutil.copy(REPOSITORY / ".gitignore", repository)
    commit(repository)
    (repository / "deploy/secrets").mkdir(parents=True)
    for name in (".env", "deploy/.env", "deploy/secrets/git_credentials"):
        (repository / name).write_text("TOKEN=secret\n")
    assert uncommitted_changes(repository) == (b"", [])
    assert git_output(repository, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("origin", "page"),
    [
        ("https://you:secret@example.com:8443/you/project.git", "https://example.com:8443/you/project/commit/0a1b"),
        ("https://token@example.com/you/project/", "https://example.com/you/project/commit/0a1b"),
        ("git@example.com:you/project.git", None),
        ("/srv/git/project.git", None),
        (None, None),
    ],
)
def test_a_commit_has_a_page_where_the_repository_came_from_one(
    repository: Path, origin: str | None, page: str | None
) -> None:
    if origin is not None:
        git_output(repository, "remote", "add", "origin", origin)
    assert commit_page("0a1b") == page
    assert commit_page("none") is None
