"""MLflow's server in one process.

`mlflow server` starts a second one that serves, and waits for it with all of MLflow loaded, for nearly as much memory
again. Here the one becomes the other.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

from vit_vs_cnn.core.process import exit_with_process

_PARENT = os.getppid()  # before MLflow is imported: who ends meanwhile is the parent no more


def main() -> None:
    """`mlflow server` with the arguments of this process, which exits with its parent."""
    import mlflow.server
    from mlflow.cli import cli

    # An MLflow without this function starts the second process.
    mlflow.server._exec_cmd = _become  # type: ignore[assignment, attr-defined]
    cli(["server", *sys.argv[1:]])


def _become(command: list[str], *, extra_env: Mapping[str, str], **_: Any) -> None:
    replacement = exit_with_process(_PARENT, *command[2:])  # python -m uvicorn …
    os.execve(replacement[0], replacement, {**os.environ, **extra_env})


if __name__ == "__main__":
    main()
