"""Processes as a script starts them in the background."""

import sys

_IGNORE = "import os, signal, sys; signal.signal(2, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"


def in_background(command: list[str]) -> list[str]:
    """The command as a shell starts it for a script's `&`: SIGINT is ignored by it and by all that it starts."""
    return [sys.executable, "-c", _IGNORE, *command]
