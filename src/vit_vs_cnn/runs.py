"""Isolated runs: changed parameters in a git worktree of their own, the user's working tree untouched."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from vit_vs_cnn.config import Settings
from vit_vs_cnn.errors import RunFailed, UserError
from vit_vs_cnn.layout import PARAMS, main_root, runs_dir, state_dir
from vit_vs_cnn.params import dump, merged_params, settings_of

FAILURE_VARIABLE = "VIT_VS_CNN_FAILURE"
_NOBODY = {
    "GIT_AUTHOR_NAME": "vit-vs-cnn",
    "GIT_AUTHOR_EMAIL": "vit-vs-cnn@localhost",
    "GIT_COMMITTER_NAME": "vit-vs-cnn",
    "GIT_COMMITTER_EMAIL": "vit-vs-cnn@localhost",
}


@dataclass(frozen=True)
class Run:
    """A finished isolated run: its name, its workspace (a git worktree) and its settings."""

    name: str
    workspace: Path
    settings: Settings


def run_isolated(preset: str | None, overrides: Sequence[str], name: str | None) -> Run:
    """Run the pipeline with changed parameters in the worktree runs/<name> and save it as a DVC experiment.

    The worktree stays: the same run again continues there, and recomputes nothing that is done. Without a name,
    the preset and a digest of the parameters make one. Raises UserError for bad parameters, and with a stage's own
    sentence where a stage fails on a user's mistake; RunFailed where it fails otherwise.
    """
    root = main_root()
    caller = Path.cwd()
    params = merged_params(root, preset, overrides)
    settings = settings_of(params)
    check_models(settings)
    params["data"]["path"] = _reachable(settings.data.path, root, caller)
    text = dump(params)
    name = name or f"{preset or 'params'}-{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}"
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith((".", "-")):
        raise UserError(f"--name {name}: letters, digits, '-', '_' and '.' only.")
    workspace = runs_dir() / name
    workspace.parent.mkdir(exist_ok=True)
    lock = FileLock(f"{workspace}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"run {name} is going on in another process; wait for it or choose another --name.") from None
    with lock:
        _prepare_workspace(root, workspace)
        (workspace / PARAMS).write_text(text, encoding="utf-8")
        _reproduce(workspace, name)
        _dvc(workspace, "exp", "save", "--force", "--name", name, "--quiet")
    return Run(name, workspace, settings)


def check_models(settings: Settings) -> None:
    """Build every contestant without memory, once per set of contestants. Raises UserError where one cannot be."""
    facts = repr((settings.models, settings.data.image_size)).encode()
    stamp = state_dir() / "checked" / hashlib.blake2b(facts, digest_size=16).hexdigest()
    if stamp.is_file():
        return
    from vit_vs_cnn.models.build import check_model

    for name, model in settings.models.items():
        check_model(model, 10, settings.data.image_size, f"models.{name}")
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.touch()


def _reachable(path: str, root: Path, caller: Path) -> str:
    """The data's path as the worktree can use it: what git or DVC keeps stays relative, the rest becomes absolute."""
    in_project = Path(path)
    if in_project.is_absolute():
        return path
    kept = subprocess.run(["git", "ls-files", "--error-unmatch", path], cwd=root, capture_output=True, check=False)
    if kept.returncode == 0 or (root / f"{path}.dvc").is_file():
        return path
    found = next((base / path for base in (caller, root) if (base / path).exists()), root / path)
    return str(found.resolve())


def _prepare_workspace(root: Path, workspace: Path) -> None:
    """A worktree with the code as it is in the main working tree now, uncommitted changes included."""
    if _git(root, "rev-parse", "--verify", "HEAD").returncode != 0:
        raise UserError(f"{root} has no git commit yet: isolated runs start from one; run `git commit` first.")
    _git(root, "worktree", "prune", check=True)
    if (workspace / ".git").is_file():
        _git(workspace, "checkout", "--quiet", "--force", "--detach", _output(root, "rev-parse", "HEAD"), check=True)
    else:
        _git(root, "worktree", "add", "--quiet", "--force", "--detach", str(workspace), check=True)
    changed = _output(root, "diff", "--name-only", "-z", "HEAD").split("\0")
    untracked = _output(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, [*changed, *untracked]):
        source, target = root / name, workspace / name
        if not source.exists():
            target.unlink(missing_ok=True)
        elif name not in {"dvc.lock", str(PARAMS)}:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    local = root / ".dvc" / "config.local"
    if local.is_file():
        shutil.copy2(local, workspace / ".dvc" / "config.local")
    cache = _output(root, sys.executable, "-m", "dvc", "cache", "dir")
    _dvc(workspace, "cache", "dir", "--local", str((root / cache).resolve()))


def _reproduce(workspace: Path, name: str) -> None:
    failure = workspace / ".dvc" / "tmp" / "failure.txt"
    failure.unlink(missing_ok=True)
    answer = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=workspace,
        env=_environment() | {"VIT_VS_CNN_RUN": name, FAILURE_VARIABLE: str(failure)},
        check=False,
    )
    if answer.returncode != 0:
        if failure.is_file():
            raise UserError(failure.read_text(encoding="utf-8"))
        raise RunFailed(f"run {name} failed; its workspace is {workspace}. The same command continues it.")


def _dvc(folder: Path, *arguments: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise RunFailed(f"`dvc {' '.join(arguments)}` failed in {folder}: {answer.stderr.strip()}")


def _environment() -> dict[str, str]:
    """The stages' commands must be found where the environment of this command is not activated."""
    scripts = str(Path(sys.executable).parent)
    # An inherited MLFLOW_RUN_ID would make MLflow's own helpers write into a foreign run.
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}
    if _git(main_root(), "config", "user.email").returncode != 0:
        # Saving an experiment makes a commit, and a newcomer's machine may not have told git who they are.
        kept = _NOBODY | kept
    return kept | {"PATH": f"{scripts}{os.pathsep}{kept.get('PATH', '')}"}


def _git(folder: Path, *arguments: str, check: bool = False) -> "subprocess.CompletedProcess[str]":
    answer = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if check and answer.returncode != 0:
        raise RunFailed(f"`git {' '.join(arguments)}` failed in {folder}: {answer.stderr.strip()}")
    return answer


def _output(folder: Path, *arguments: str) -> str:
    command = arguments if arguments[0] == sys.executable else ("git", *arguments)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
