"""Errors behind which a disk stands that is full or cannot be written, whatever a library makes of them."""

import errno
import shutil
import tempfile
from pathlib import Path

from vit_vs_cnn.core.errors import UserError, first_line

_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
# Of libraries that pass on no number: SQLite, safetensors, Arrow.
_SAID = ("No space left on device", "database or disk is full", "readonly database", "Read-only file system")
# PyTorch only says that what it wrote is not there.
_FULL_BYTES = 2**18


def disk_refusal(error: BaseException) -> UserError | None:
    """One sentence for an error, or one that it came from, that says that a disk refused; None for any other."""
    causes = _chain(error)
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in _REFUSED:
            return UserError(f"{cause.filename or 'a file'} cannot be written: {cause.strerror}.")
    for cause in causes:
        if said := next((words for words in _SAID if words in str(cause)), None):
            return UserError(f"a file below {Path.cwd()} cannot be written: {said}.")
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        if shutil.disk_usage(folder).free < _FULL_BYTES:
            return UserError(f"the disk of {folder} is full ({first_line(error)}): free some space and start again.")
    return None


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return chain
