"""Where a run comes from: code, data, parameters, packages, machine, orchestrator."""

import getpass
import os
import platform
import re
import subprocess
import tempfile
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.parse import urlsplit

from vit_vs_cnn.core.git import git
from vit_vs_cnn.core.paths import PARAMS
from vit_vs_cnn.core.records import digest_of

GIT_COMMIT_TAG = "mlflow.source.git.commit"
DIRTY_TAG = "git.dirty"
RUN_NAME_TAG = "vit_vs_cnn.run_name"
# Beyond these, files that git does not track are named and not copied: they may be a person's images.
_LARGEST = 256 * 2**10
_MOST_UNTRACKED = 100
_FIELD = re.compile(r"^(Name|Version): *(\S+)", re.MULTILINE)
_ENVIRONMENT_TAGS = {"prefect.flow_run_id": "PREFECT__FLOW_RUN_ID", RUN_NAME_TAG: "VIT_VS_CNN_RUN"}


def lineage_tags() -> dict[str, str]:
    """The tags of every run and model version: git commit, dirty flag, digest of the parameters, machine, caller."""
    here = Path.cwd()
    # The parameters have a digest, and DVC writes dvc.lock while it runs: both nearly always differ.
    changed = git(here, "status", "--porcelain", "--", ".", f":(exclude){PARAMS}", ":(exclude)dvc.lock").stdout
    tags = {
        GIT_COMMIT_TAG: git(here, "rev-parse", "--verify", "--quiet", "HEAD").stdout.strip() or "none",
        DIRTY_TAG: str(bool(changed)).lower(),
        "params.digest": digest_of(PARAMS.read_bytes()) if PARAMS.is_file() else "none",
        "host.python": platform.python_version(),
        "host.platform": platform.platform(),
        "host.cpus": str(os.cpu_count()),
        "mlflow.user": user_name(),
        "mlflow.source.name": "vit-vs-cnn",
        "mlflow.source.type": "LOCAL",
    }
    return tags | {tag: os.environ[name] for tag, name in _ENVIRONMENT_TAGS.items() if os.environ.get(name)}


def commit_page(commit: str) -> str | None:
    """The page of a commit where the repository came from, without what the address has of a login.

    None where there is no commit, or `origin` is no http(s) address.
    """
    origin = urlsplit(git(Path.cwd(), "remote", "get-url", "origin").stdout.strip())
    if commit == "none" or origin.scheme not in ("http", "https"):
        return None
    host = origin.netloc.rpartition("@")[2]
    return f"{origin.scheme}://{host}{origin.path.rstrip('/').removesuffix('.git')}/commit/{commit}"


def write_lineage(folder: Path) -> None:
    """Write what is too long for tags into `folder`: params.yaml, dvc.lock, package versions, uncommitted diff."""
    folder.mkdir()
    for path in (PARAMS, Path("dvc.lock")):
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "packages.txt").write_text(_packages(), encoding="utf-8")
    difference, missing = uncommitted_changes(Path.cwd())
    # Also where there is none: a run that is resumed after a commit must not keep what it began with.
    (folder / "uncommitted.diff").write_bytes(difference)
    if missing:
        (folder / "untracked.txt").write_text("\n".join(missing) + "\n", encoding="utf-8", errors="surrogateescape")


@cache
def _packages() -> str:
    """The installed packages, a line for each."""
    found = sorted(set(map(_name_and_version, distributions())), key=str.lower)
    return "".join(f"{line}\n" for line in found)


def _name_and_version(package: Distribution) -> str:
    # As `package.name` and `package.version` have it; they parse all of a readme, each of them.
    text = package.read_text("METADATA") or package.read_text("PKG-INFO") or ""
    fields = dict(_FIELD.findall(text.partition("\n\n")[0]))
    return f"{fields.get('Name')}=={fields.get('Version')}"


def uncommitted_changes(folder: Path) -> tuple[bytes, list[str]]:
    """What `git apply` turns the commit of the repository in `folder` into its files, and what that omits.

    These are names of files that git does not track and that are large or many.
    """
    untracked = git(folder, "ls-files", "--others", "--exclude-standard", "-z").stdout.split("\0")[:-1]
    small = [name for name in untracked if (folder / name).is_file() and (folder / name).stat().st_size <= _LARGEST]
    small = small[:_MOST_UNTRACKED]
    with tempfile.TemporaryDirectory() as scratch:
        # An index of its own: what the person has staged stays staged.
        environment = os.environ | {"GIT_INDEX_FILE": str(Path(scratch) / "index")}

        def run(*arguments: str) -> bytes:
            command = ["git", "-C", str(folder), *arguments]
            return subprocess.run(command, env=environment, capture_output=True, check=False).stdout

        run("read-tree", "HEAD")
        run("add", "--update", "--", ".")
        if small:
            run("add", "--", *small)
        # DVC writes dvc.lock while it runs, so it always differs; it has a copy of its own.
        difference = run("diff", "--cached", "--binary", "HEAD", "--", ".", ":(exclude)dvc.lock")
    return difference, sorted(set(untracked).difference(small))


def user_name() -> str:
    """The name of the user that the process runs as."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"  # a container's user id without a name
