"""A run's workspace: the project itself, or a git worktree under runs/ that leaves the user's working tree alone."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import duration
from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.git import git, git_output
from vit_vs_cnn.core.paths import COMMAND_VARIABLE, PARAMS, main_root, remove, runs_dir
from vit_vs_cnn.core.process import ProcessIdentity, exit_with_parent, search_path
from vit_vs_cnn.core.records import digest_of
from vit_vs_cnn.orchestration.active_runs import ActiveRun, active_runs, lock_file
from vit_vs_cnn.orchestration.leftovers import remove_leftovers_of_dvc, remove_stale_git_locks
from vit_vs_cnn.orchestration.request import Request, check_models, read_request

IN_PLACE = "in-place"
_GIT_WAIT_SECONDS = 120.0
# An untracked folder beyond this is images rather than code, and is linked.
_MOST_COPIED = 500
_MOST_COPIED_BYTES = 20 * 2**20
# The folder in DVC's cache where projects sign that do not contain it.
_USERS = "used-by"
_GIT_IDENTITY = {
    "GIT_AUTHOR_NAME": "vit-vs-cnn",
    "GIT_AUTHOR_EMAIL": "vit-vs-cnn@localhost",
    "GIT_COMMITTER_NAME": "vit-vs-cnn",
    "GIT_COMMITTER_EMAIL": "vit-vs-cnn@localhost",
}


@dataclass(frozen=True)
class PipelineRun:
    """An active run: its name, the folder it works in, its settings, the command that asks for it again.

    At its end, `seconds` are those that it took, `ran` and `cached` its stages.
    """

    name: str
    workspace: Path
    settings: Settings
    isolated: bool
    command: str
    seconds: float = 0.0
    ran: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """How it went: its time, how many of its stages ran, and which were cached."""
        names = f" ({', '.join(self.cached)})" if self.ran and self.cached else ""
        return f"{duration(self.seconds)}: {len(self.ran)} stages ran, {len(self.cached)} were cached{names}"


@contextmanager
def open_run(request: Request, flow_run_id: str | None = None) -> Iterator[PipelineRun]:
    """The run that `request` describes, in a workspace that no other process uses until it is closed.

    An isolated workspace, runs/<name>, stays afterwards: the same run again continues there. Raises UserError for
    bad parameters, and while a run of the same name is active.
    """
    text, settings = read_request(request)
    check_models(settings)
    name = run_name(request, text)
    workspace = main_root() if request.in_place else runs_dir() / name
    runs_dir().mkdir(exist_ok=True)
    dead = next((run for run in active_runs(dead=True) if run.name == name and run.flow_run_id), None)
    lock = FileLock(lock_file(name))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"run {name} is active in another process; wait for it or choose another --name.") from None
    active = ActiveRun(name=name, workspace=workspace, process=ProcessIdentity.current(), flow_run_id=flow_run_id)
    try:
        active.save()
        if not request.in_place:
            with _git_lock():
                _prepare_workspace(main_root(), workspace)
            (workspace / PARAMS).write_text(text, encoding="utf-8")
            _check_out_data(workspace, settings)
        remove_leftovers_of_dvc(workspace)
        sign_cache(main_root())
        yield PipelineRun(name, workspace, settings, isolated=not request.in_place, command=request.command(name))
    finally:
        active.remove()
        if dead is not None and flow_run_id is None:
            dead.save()  # Prefect does not know of its end yet
        lock.release()


def run_name(request: Request, text: str) -> str:
    """The name of the run with params.yaml of this `text`."""
    digest = hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
    return IN_PLACE if request.in_place else request.name or f"{request.preset or 'params'}-{digest}"


def run_environment(run: PipelineRun) -> dict[str, str]:
    """The environment of the run's DVC processes."""
    # An inherited MLFLOW_RUN_ID would make MLflow's own helpers write into a foreign run.
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}
    if git(main_root(), "config", "user.email").returncode != 0:
        # Saving an experiment makes a commit, and on a new machine git may not know its user yet.
        kept = _GIT_IDENTITY | kept
    named = {"VIT_VS_CNN_RUN": run.name} if run.isolated else {}
    return kept | {"PATH": search_path(), COMMAND_VARIABLE: run.command} | named


def save_run(run: PipelineRun, stages: Sequence[str] = ()) -> None:
    """Save a finished isolated run, or its `stages`, as the DVC experiment of its name, replacing an earlier one."""
    command = exit_with_parent("dvc", "exp", "save", "--force", "--name", run.name, *stages)
    with _git_lock():
        remove_stale_git_locks(main_root(), run.workspace)
        answer = subprocess.run(
            command,
            cwd=run.workspace,
            env=run_environment(run),
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
    if answer.returncode != 0:
        raise RunError(f"`dvc exp save` failed in {run.workspace}: {answer.stderr.strip()}")


def is_saved(run: PipelineRun) -> bool:
    """Whether the DVC experiment of the run's name holds what is in its workspace."""
    root, facts = main_root(), ("dvc.lock", str(PARAMS))
    present = git_output(run.workspace, "hash-object", "--", *facts).split()
    references = git_output(root, "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{run.name}").split()
    saved = [git(root, "rev-parse", *(f"{found}:{fact}" for fact in facts)).stdout.split() for found in references]
    return present in saved


def remove_workspace(workspace: Path) -> None:
    """Remove an isolated run's worktree; its experiment and what the cache holds stay."""
    with _git_lock():
        git(main_root(), "worktree", "remove", "--force", "--force", str(workspace))
        shutil.rmtree(workspace, ignore_errors=True)
        git(main_root(), "worktree", "unlock", str(workspace))
        git_output(main_root(), "worktree", "prune")
    lock_file(workspace.name).unlink(missing_ok=True)


@contextmanager
def worktree_at(commit: str, name: str) -> Iterator[Path]:
    """A worktree of `commit` under runs/ that shares the DVC cache, until the context ends.

    Raises UserError where the repository does not have the commit.
    """
    root, workspace = main_root(), runs_dir() / name
    if git(root, "cat-file", "-e", f"{commit}^{{commit}}").returncode != 0:
        raise UserError(f"commit {commit} is not in this repository; `git fetch` it first.")
    runs_dir().mkdir(exist_ok=True)
    with FileLock(lock_file(name)):
        try:
            with _git_lock():
                _add_worktree(root, workspace, commit)
            _share_cache(root, workspace)
            yield workspace
        finally:
            remove_workspace(workspace)


def _git_lock() -> FileLock:
    """Worktrees and experiments are entries of the one git repository: runs take turns at them."""
    return FileLock(runs_dir() / ".git.lock", timeout=_GIT_WAIT_SECONDS)


def _prepare_workspace(root: Path, workspace: Path) -> None:
    """Make a worktree with the code as it is in the main working tree now, uncommitted changes included."""
    head = git(root, "rev-parse", "--verify", "HEAD").stdout.strip()
    if not head:
        raise UserError(f"{root} has no git commit yet: isolated runs start from one; run `git commit` first.")
    # The workspace's own dvc.lock says what is done there; a committed one would have it done again.
    lock = workspace / "dvc.lock"
    done = lock.read_bytes() if lock.is_file() else None
    remove_stale_git_locks(root, workspace)
    is_worktree = (workspace / ".git").is_file() and git(workspace, "rev-parse", "--verify", "HEAD").returncode == 0
    if not is_worktree or git(workspace, "checkout", "--quiet", "--force", "--detach", head).returncode != 0:
        _add_worktree(root, workspace, head)
    if done is not None:
        lock.write_bytes(done)
    changed = git_output(root, "diff", "--name-only", "-z", "HEAD").split("\0")
    untracked = _untracked(root)
    for name in filter(None, [*changed, *untracked]):
        source, target = root / name, workspace / name
        for folder in filter(Path.is_symlink, (workspace / parent for parent in Path(name).parents)):
            folder.unlink()  # of the time when it held more
        if not source.exists():
            target.unlink(missing_ok=True)
        elif name not in {"dvc.lock", str(PARAMS)}:
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir() or (name in untracked and source.stat().st_size > _MOST_COPIED_BYTES):
                # A folder, a repository inside this one, or an archive: all may be larger than a copy should be.
                remove(target)
                target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
            else:
                if target.is_symlink():
                    target.unlink()
                shutil.copy2(source, target)
    _share_cache(root, workspace)


def _untracked(root: Path) -> list[str]:
    """Files that git does not know, and of folders that hold many or large ones the folder itself."""
    listed = ("ls-files", "--others", "--exclude-standard", "-z")
    names: list[str] = []
    for name in filter(None, git_output(root, *listed, "--directory").split("\0")):
        files = list(filter(None, git_output(root, *listed, "--", name).split("\0"))) if name.endswith("/") else [name]
        size = sum((root / file).lstat().st_size for file in files[: _MOST_COPIED + 1])
        large = len(files) > _MOST_COPIED or size > _MOST_COPIED_BYTES
        names += [name.rstrip("/")] if large else files
    return names


def _add_worktree(root: Path, workspace: Path, commit: str) -> None:
    shutil.rmtree(workspace, ignore_errors=True)
    git_output(root, "worktree", "prune")
    # Twice: a worktree that was being made when git was killed is locked.
    git_output(root, "worktree", "add", "--quiet", "--force", "--force", "--detach", str(workspace), commit)


def _check_out_data(workspace: Path, settings: Settings) -> None:
    """Check out images and weights that `dvc add` keeps; a worktree has their .dvc files only."""
    paths = [settings.data.path, *(model.weights for model in settings.models.values() if model.weights)]
    for path in (path for path in paths if (workspace / f"{path}.dvc").is_file()):
        command = [sys.executable, "-m", "dvc", "checkout", "--quiet", "--force", f"{path}.dvc"]
        answer = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            said = " ".join(answer.stderr.split())
            ways = f"`dvc pull {path}.dvc` fetches it, or `dvc add {path}` where it is"
            raise UserError(f"{path}: DVC cannot check it out ({said}): {ways}.")


def cache_dir(root: Path) -> Path:
    """Where DVC keeps the cache of the project in `root`. Raises UserError where its configuration cannot be read."""
    # As `dvc cache dir` does it; as a command it would take a second.
    from dvc.config import Config, ConfigError

    try:
        configured = Config(str(root / ".dvc"))["cache"].get("dir", root / ".dvc" / "cache")
    except ConfigError as error:
        raise UserError(f"{root / '.dvc'}: DVC cannot read its configuration: {error}") from None
    return Path(root, configured).resolve()


def is_shared_cache(root: Path) -> bool:
    """Whether other projects may need what is in the cache: it lies outside this one, or their runs have signed it."""
    cache = cache_dir(root)
    users = [Path(file.read_text(encoding="utf-8")) for file in (cache / _USERS).glob("*")]
    return not cache.is_relative_to(root) or any(user.is_dir() for user in users)


def sign_cache(root: Path) -> None:
    """Note in a cache that lies in another project that this one uses it."""
    cache = cache_dir(root)
    if not cache.is_relative_to(root) and any((folder / ".dvc").is_dir() for folder in cache.parents):
        signature = cache / _USERS / digest_of(str(root).encode())[:12]
        signature.parent.mkdir(parents=True, exist_ok=True)
        signature.write_text(str(root), encoding="utf-8")


def _share_cache(root: Path, workspace: Path) -> None:
    from dvc.config import Config

    local, cache = root / ".dvc" / "config.local", cache_dir(root)
    if local.is_file():
        shutil.copy2(local, workspace / ".dvc" / "config.local")
    with Config(str(workspace / ".dvc")).edit("local") as config:
        config["cache"]["dir"] = str(cache)
