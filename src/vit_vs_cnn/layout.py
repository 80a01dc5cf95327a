"""Where things lie: every path that a stage reads or writes, and the state that outlives a run.

Stage paths are relative to the project folder, which is the working directory of every stage. They are
the same paths that dvc.yaml names.
"""

import subprocess
from functools import cache
from pathlib import Path

from vit_vs_cnn.errors import UserError

PARAMS = Path("params.yaml")
PRESETS = Path("presets")
PREPARED = Path("data/prepared")
EDA = Path("reports/eda")
COMPARE = Path("reports/compare")
REGISTERED = Path("registered")
RUN_FILE = "run.json"


def tuned(model: str) -> Path:
    """The file of recipe overrides that tuning found for `model`."""
    return Path("tuned") / f"{model}.yaml"


def tuning_summary(model: str) -> Path:
    """What the search for that recipe gained and cost, in numbers."""
    return Path("tuned") / f"{model}.json"


def tuning_report(model: str) -> Path:
    """The folder with the figures of `model`'s search."""
    return Path("reports/tune") / model


def trained(model: str) -> Path:
    """The folder with `model`'s weights, exported model, history and training summary."""
    return Path("trained") / model


def evaluated(model: str) -> Path:
    """The folder with `model`'s metrics, cost and predictions on the test split."""
    return Path("evaluated") / model


def explained(model: str) -> Path:
    """The folder with the pictures that explain `model`."""
    return Path("reports/explain") / model


@cache
def project_root(start: Path | None = None) -> Path:
    """The project folder that holds `start` (default: the working directory).

    Raises UserError outside a project.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() and (folder / PARAMS).is_file():
            return folder
    raise UserError(
        f"{here} is not inside a vit-vs-cnn project (no dvc.yaml and params.yaml in it or above it): "
        "change to the folder that you cloned."
    )


@cache
def main_root(start: Path | None = None) -> Path:
    """The main working tree: where isolated runs (git worktrees) keep what they share with it."""
    root = project_root(start)
    answer = subprocess.run(
        ["git", "rev-parse", "--path-format=absolute", "--git-common-dir"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    common = Path(answer.stdout.strip())
    return common.parent if answer.returncode == 0 and common.name == ".git" else root


def mlruns_dir() -> Path:
    """The folder of the default tracking store, shared by all runs of the project."""
    return main_root() / "mlruns"


def state_dir() -> Path:
    """What must survive a killed run and is no output: checkpoints, unsent tracking, measured choices."""
    return main_root() / ".vit-vs-cnn"


def runs_dir() -> Path:
    """The folder of the isolated runs, one git worktree each."""
    return main_root() / "runs"
