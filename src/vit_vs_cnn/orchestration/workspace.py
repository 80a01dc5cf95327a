"""A run's workspace: the project itself, or a git worktree of its own that leaves the user's working tree alone."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from vit_vs_cnn.config.load import dump, merged_params, read_settings, settings_of
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.paths import PARAMS, main_root, runs_dir, state_dir
from vit_vs_cnn.orchestration.active_runs import ActiveRun, remove_active_run, save_active_run

IN_PLACE = "in-place"
_GIT_WAIT_SECONDS = 120.0
_NOBODY = {
    "GIT_AUTHOR_NAME": "vit-vs-cnn",
    "GIT_AUTHOR_EMAIL": "vit-vs-cnn@localhost",
    "GIT_COMMITTER_NAME": "vit-vs-cnn",
    "GIT_COMMITTER_EMAIL": "vit-vs-cnn@localhost",
}


@dataclass(frozen=True)
class Request:
    """What a person asks to run; `name`, where it is None, is made from the parameters.

    `stages` names the stages to run with what they need (none: all), `force` those that run though nothing changed;
    `train` stands for all `train@<model>`. `in_place` runs params.yaml as it stands in the working tree.
    """

    preset: str | None = None
    overrides: tuple[str, ...] = ()
    name: str | None = None
    stages: tuple[str, ...] = ()
    force: tuple[str, ...] = ()
    in_place: bool = False


@dataclass(frozen=True)
class Run:
    """A run that is going on: its name, the folder it works in, its settings."""

    name: str
    workspace: Path
    settings: Settings
    isolated: bool


@contextmanager
def open_run(request: Request, flow_run_id: str | None = None) -> Iterator[Run]:
    """The run that `request` describes, in a workspace that no other process uses until it is closed.

    An isolated workspace, runs/<name>, stays afterwards: the same run again continues there. Raises UserError for
    bad parameters, and where a run of the same name is going on.
    """
    root = main_root()
    if request.in_place:
        if request.preset or request.overrides or request.name:
            raise UserError("in place, params.yaml runs as it stands: leave out preset, changed settings and name.")
        name, text, settings = IN_PLACE, None, read_settings(root / PARAMS)
    else:
        text, settings = _parameters(root, request)
        name = request.name or f"{request.preset or 'params'}-{_digest(text, 3)}"
    check_models(settings)
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith((".", "-")):
        raise UserError(f"--name {name}: letters, digits, '-', '_' and '.' only.")
    workspace = root if text is None else runs_dir() / name
    runs_dir().mkdir(exist_ok=True)
    lock = FileLock(runs_dir() / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"run {name} is going on in another process; wait for it or choose another --name.") from None
    with lock:
        save_active_run(ActiveRun.of_this_process(name, workspace, flow_run_id))
        try:
            if text is not None:
                with _git_lock():
                    _prepare_workspace(root, workspace)
                (workspace / PARAMS).write_text(text, encoding="utf-8")
            yield Run(name, workspace, settings, isolated=text is not None)
        finally:
            remove_active_run(name)


def save_run(run: Run) -> None:
    """Save a finished isolated run as the DVC experiment of its name, replacing an earlier one."""
    with _git_lock():
        _dvc(run.workspace, "exp", "save", "--force", "--name", run.name)


def is_saved(run: Run) -> bool:
    """Whether there is a DVC experiment of the run's name."""
    return run.name in _output(main_root(), "for-each-ref", "--format=%(refname:lstrip=-1)", "refs/exps").split()


def check_request(request: Request) -> None:
    """Raise UserError where the request's parameters are bad, which takes a moment and needs no server."""
    _, settings = _parameters(main_root(), request)
    check_models(settings)


def check_models(settings: Settings) -> None:
    """Build every contestant without memory, once per set of contestants, and with the ends of what tuning may change.

    Raises UserError where one cannot be built, or where tuning cannot be set up.
    """
    facts = (settings.models, settings.data.image_size, settings.tune if settings.tune.trials else None)
    stamp = state_dir() / "checked" / _digest(repr(facts), 16)
    if stamp.is_file():
        return
    from vit_vs_cnn.models.build import check_model

    for name, model in settings.models.items():
        check_model(model, 10, settings.data.image_size, f"models.{name}")
    if settings.tune.trials:
        from vit_vs_cnn.tuning.sampling import check_search

        for name in settings.models:
            check_search(settings, name)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.touch()


def run_environment(run: Run) -> dict[str, str]:
    """The environment of the run's DVC processes: this interpreter's commands, no foreign MLflow run."""
    return _environment() | ({"VIT_VS_CNN_RUN": run.name} if run.isolated else {})


def remove_workspace(workspace: Path) -> None:
    """Remove an isolated run's worktree; its experiment and what the cache holds stay."""
    with _git_lock():
        _git(main_root(), "worktree", "remove", "--force", "--force", str(workspace))
        shutil.rmtree(workspace, ignore_errors=True)
        _git(main_root(), "worktree", "prune", check=True)
    workspace.with_name(f"{workspace.name}.lock").unlink(missing_ok=True)


@contextmanager
def worktree_at(commit: str, name: str) -> Iterator[Path]:
    """A worktree of `commit` under runs/ that shares the DVC cache, until the context ends.

    Raises UserError where the repository does not have the commit.
    """
    root, workspace = main_root(), runs_dir() / name
    if _git(root, "cat-file", "-e", f"{commit}^{{commit}}").returncode != 0:
        raise UserError(f"commit {commit} is not in this repository; `git fetch` it first.")
    runs_dir().mkdir(exist_ok=True)
    with FileLock(runs_dir() / f"{name}.lock"):
        try:
            with _git_lock():
                shutil.rmtree(workspace, ignore_errors=True)
                _git(root, "worktree", "prune", check=True)
                _git(root, "worktree", "add", "--quiet", "--force", "--detach", str(workspace), commit, check=True)
            _share_cache(root, workspace)
            yield workspace
        finally:
            remove_workspace(workspace)


def dvc_succeeds(workspace: Path, *arguments: str) -> bool:
    """Whether DVC could do something in a workspace."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=workspace, env=_environment(), capture_output=True, check=False).returncode == 0


def old_workspaces(days: float) -> list[Path]:
    """Isolated workspaces that no run has used for `days` days and none uses now."""
    limit = time.time() - days * 86_400
    return [
        folder
        for folder in sorted(runs_dir().glob("*/"))
        if (folder / PARAMS).is_file() and (folder / PARAMS).stat().st_mtime < limit and not is_running(folder.name)
    ]


def is_running(name: str) -> bool:
    """Whether a process has the run `name` open."""
    lock = FileLock(runs_dir() / f"{name}.lock")
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def _parameters(root: Path, request: Request) -> tuple[str, Settings]:
    params = merged_params(root, request.preset, request.overrides)
    settings = settings_of(params)
    params["data"]["path"] = _reachable(settings.data.path, root, Path.cwd())
    return dump(params), settings


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def _git_lock() -> FileLock:
    """Worktrees and experiments are entries of the one git repository: runs take turns at them."""
    return FileLock(runs_dir() / ".git.lock", timeout=_GIT_WAIT_SECONDS)


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
    if _git(workspace, "rev-parse", "--verify", "HEAD").returncode == 0 and (workspace / ".git").is_file():
        # The workspace's own dvc.lock says what is done there; a committed one would have it done again.
        lock = workspace / "dvc.lock"
        done = lock.read_bytes() if lock.is_file() else None
        _git(workspace, "checkout", "--quiet", "--force", "--detach", _output(root, "rev-parse", "HEAD"), check=True)
        if done is not None:
            lock.write_bytes(done)
    else:
        shutil.rmtree(workspace, ignore_errors=True)
        _git(root, "worktree", "add", "--quiet", "--force", "--detach", str(workspace), check=True)
    changed = _output(root, "diff", "--name-only", "-z", "HEAD").split("\0")
    untracked = _output(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, [*changed, *untracked]):
        source, target = root / name, workspace / name
        if not source.exists():
            target.unlink(missing_ok=True)
        elif name not in {"dvc.lock", str(PARAMS)}:
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                # A link to a folder, or a repository inside this one: both may be larger than a copy should be.
                target.unlink(missing_ok=True)
                target.symlink_to(source.resolve(), target_is_directory=True)
            else:
                shutil.copy2(source, target)
    _share_cache(root, workspace)


def _share_cache(root: Path, workspace: Path) -> None:
    # As `dvc cache dir` does it, twice: as commands they would take a second.
    from dvc.config import Config, ConfigError

    local = root / ".dvc" / "config.local"
    if local.is_file():
        shutil.copy2(local, workspace / ".dvc" / "config.local")
    try:
        cache = Config(str(root / ".dvc"))["cache"].get("dir", root / ".dvc" / "cache")
        with Config(str(workspace / ".dvc")).edit("local") as config:
            config["cache"]["dir"] = str((root / cache).resolve())
    except ConfigError as error:
        raise UserError(f"{root / '.dvc'}: DVC cannot read its configuration: {error}") from None


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
        raise RunError(f"`dvc {' '.join(arguments)}` failed in {folder}: {answer.stderr.strip()}")


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
    answer = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    if check and answer.returncode != 0:
        raise RunError(f"`git {' '.join(arguments)}` failed in {folder}: {answer.stderr.strip()}")
    return answer


def _output(folder: Path, *arguments: str) -> str:
    command = arguments if arguments[0] == sys.executable else ("git", *arguments)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
