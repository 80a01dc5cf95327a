"""The paths of the project: what the stages read and write, and the state that outlives a run.

Paths of stages are relative to the project folder, the working directory of every stage, as in dvc.yaml.
"""

import os
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.git import git

PARAMS = Path("params.yaml")
PRESETS = Path("presets")
PREPARED = Path("data/prepared")
EDA = Path("reports/eda")
COST = Path("cost")
COMPARE = Path("reports/compare")
SHIFT = COMPARE / "shift"
ERRORS = COMPARE / "errors"
REGISTERED = Path("registered")
RUN_FILE = "run.json"

# The folder of `state_dir`, where the project itself is a clone that does not stay.
STATE_VARIABLE = "VIT_VS_CNN_STATE"
STORAGE_VARIABLE = "OPTUNA_STORAGE"
# For stages: the command that runs them again with the same settings, to which a person may add options.
COMMAND_VARIABLE = "VIT_VS_CNN_COMMAND"


def tuned(contestant: str) -> Path:
    """The recipe that `contestant` is trained with, as tuning found it."""
    return Path("tuned") / f"{contestant}.yaml"


def tuning_summary(contestant: str) -> Path:
    """The numbers of that search: its gain and its cost."""
    return Path("tuned") / f"{contestant}.json"


def tuning_report(contestant: str) -> Path:
    """The folder with the figures of that search."""
    return Path("reports/tune") / contestant


def trained(contestant: str, seed: int) -> Path:
    """The folder with the weights, exported model, history and training summary of a replicate of `contestant`."""
    return Path("trained") / contestant / str(seed)


def evaluated(contestant: str, seed: int) -> Path:
    """The folder with the metrics and predictions of a replicate of `contestant` on the test split."""
    return Path("evaluated") / contestant / str(seed)


def robustness(contestant: str) -> Path:
    """The folder with what `contestant` is worth on corrupted test images."""
    return Path("robustness") / contestant


def cost_file(contestant: str) -> Path:
    """What the model of `contestant` costs to use."""
    return COST / f"{contestant}.json"


def explained(contestant: str) -> Path:
    """The folder with the figures that explain `contestant`."""
    return Path("reports/explain") / contestant


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@cache
def project_root() -> Path:
    """The project folder that holds the working directory. Raises UserError outside a project."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() and (folder / PARAMS).is_file():
            return folder
    raise UserError(
        f"{here} is not inside a vit-vs-cnn project (no dvc.yaml and params.yaml in it or above it): "
        "change to one, or make one with `vit-vs-cnn init FOLDER`."
    )


@cache
def main_root() -> Path:
    """The main working tree: where isolated runs (git worktrees) keep what they share with it."""
    root = project_root()
    answer = git(root, "rev-parse", "--path-format=absolute", "--git-common-dir")
    common = Path(answer.stdout.strip())
    return common.parent if answer.returncode == 0 and common.name == ".git" else root


def mlruns_dir() -> Path:
    """The folder of the default tracking store, shared by all runs of the project."""
    return main_root() / "mlruns"


def studies_file() -> Path:
    """The database of tuning studies, where OPTUNA_STORAGE names no other."""
    return mlruns_dir() / "optuna.db"


def state_dir() -> Path:
    """What must survive a killed run and is no output: checkpoints, pending records of runs, keys, logs.

    It is .vit-vs-cnn of the project, or where VIT_VS_CNN_STATE says, and for its owner alone: logs and settings of
    servers may hold a password.
    """
    given = os.environ.get(STATE_VARIABLE)
    folder = Path(given) if given else main_root() / ".vit-vs-cnn"
    with suppress(OSError):  # whoever writes there says that it cannot be
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def runs_dir() -> Path:
    """The folder of the isolated runs, one git worktree each."""
    return main_root() / "runs"


def bytes_in(folder: Path) -> int:
    """The size of the files in a folder and below it, which may vanish meanwhile; none where it does not exist."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(parent, name).stat().st_size
    return total
