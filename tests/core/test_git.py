"""Calls of git: names that are not UTF-8, and machines without it."""

import subprocess
import sys
from pathlib import Path

import pytest

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.git import git, git_output
from vit_vs_cnn.tracking.lineage import uncommitted_changes, write_lineage

SMALL, LARGE = "caf\udce9.txt", "photo \udce9.tif"  # as Python has names in Latin-1


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with files that git does not track, whose names are in Latin-1."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git_output(folder, "init", "--quiet")
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    git_output(folder, *identity, "commit", "--quiet", "--allow-empty", "--message", "x")
    (folder / SMALL).write_text("one\n")
    (folder / LARGE).write_bytes(bytes(2**20))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such names")
def test_names_of_files_need_not_be_utf_8(repository: Path, tmp_path: Path) -> None:
    assert git_output(repository, "ls-files", "--others", "-z").split("\0") == [SMALL, LARGE, ""]
    difference, missing = uncommitted_changes(repository)
    assert missing == [LARGE]
    clone = tmp_path / "clone"
    git_output(tmp_path, "clone", "--quiet", str(repository), str(clone))
    subprocess.run(["git", "-C", str(clone), "apply", "-"], input=difference, check=True)
    assert (clone / SMALL).read_text() == "one\n"
    write_lineage(tmp_path / "lineage")
    assert (tmp_path / "lineage/untracked.txt").read_bytes() == b"photo \xe9.tif\n"


def test_without_git_it_is_said_what_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="git is not on PATH, and DVC and isolated runs need it: install it"):
        git(tmp_path, "status")
