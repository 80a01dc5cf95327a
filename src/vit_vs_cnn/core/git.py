"""Calls of git."""

import os
import subprocess
from pathlib import Path

from vit_vs_cnn.core.errors import RunError, UserError

# A command that only reads must leave no lock when it is killed: it would stop the person's next commit.
_READING = {"GIT_OPTIONAL_LOCKS": "0"}


def git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run git in `folder` and return its exit code and output. Raises UserError where there is no git."""
    command = ["git", "-C", str(folder), *arguments]
    environment = os.environ | _READING
    try:
        # Names of files need not be UTF-8.
        return subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", errors="surrogateescape", check=False
        )
    except FileNotFoundError:
        raise UserError("git is not on PATH, and DVC and isolated runs need it: install it.") from None


def git_output(folder: Path, *arguments: str) -> str:
    """What git prints in `folder`. Raises RunError where it fails."""
    answer = git(folder, *arguments)
    if answer.returncode != 0:
        raise RunError(f"`git {' '.join(arguments)}` failed in {folder}: {answer.stderr.strip()}")
    return answer.stdout
