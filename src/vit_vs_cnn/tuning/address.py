"""Where studies are kept."""

import os

from vit_vs_cnn.core.paths import mlruns_dir

STORAGE_VARIABLE = "OPTUNA_STORAGE"


def storage_address() -> str:
    """OPTUNA_STORAGE (a database's URL, or the path of a journal file), or the SQLite file in the project's mlruns/."""
    return os.environ.get(STORAGE_VARIABLE) or f"sqlite:///{mlruns_dir() / 'optuna.db'}"
