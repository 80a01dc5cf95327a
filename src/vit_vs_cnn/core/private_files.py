"""Files that hold a secret."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def read_or_make_secret(file: Path, make: Callable[[], str]) -> str:
    """Read the secret in `file`; where there is none yet, `make` it, for the owner of the file alone (mode 600)."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        with open(draft, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as new:
            new.write(make())
        # Of two processes that make one at the same time the first wins, and both read the same.
        with suppress(FileExistsError):
            os.link(draft, file)
        draft.unlink()
    return file.read_text(encoding="utf-8")
