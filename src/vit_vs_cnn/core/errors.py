"""Exceptions that are shown as one sentence, and the error report that carries a stage's sentence past DVC.

The command writes the report (cli), the process that started it reads it (orchestration, tuning).
"""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

ERROR_REPORT_VARIABLE = "VIT_VS_CNN_ERROR_REPORT"
_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]*@")


class UserError(Exception):
    """A mistake that the user can fix: one sentence saying what is wrong, where, and what to do.

    The command prints the sentence without a traceback and exits with code 2. Addresses in it lose their passwords.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(without_password(sentence))


class TransientError(UserError):
    """A failure outside this process that may resolve itself, of a download, a server or a lock; it is retried."""


class RunError(Exception):
    """A run failed, for the reason in the output above. The command exits with code 1."""

    def __init__(self, sentence: str) -> None:
        super().__init__(without_password(sentence))


class GateRejectedError(Exception):
    """A version did not become champion: a rule of the gate failed, or the champion has changed. Exit code 3."""


class GateUndecidedError(GateRejectedError):
    """A version did not become champion: its test images do not decide whether it is worse. Exit code 4."""


class NotApplicableError(Exception):
    """An explanation that does not apply to a network: one sentence for the report."""


def write_error_report(error: UserError) -> None:
    """Write why a stage failed to the file named by VIT_VS_CNN_ERROR_REPORT, if the parent process has set it."""
    path = os.environ.get(ERROR_REPORT_VARIABLE)
    if path:
        report = {"message": str(error), "retryable": isinstance(error, TransientError)}
        with suppress(OSError):  # a full disk may be what it is to report
            Path(path).write_text(json.dumps(report), encoding="utf-8")


def read_error_report(path: Path) -> UserError | None:
    """The error that a stage reported in the file `path`, None if it reported none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):  # killed while it wrote
        return None
    return (TransientError if report["retryable"] else UserError)(report["message"])


def without_password(text: str) -> str:
    """The text as it may be shown and kept: `***` stands for the password of every address in it."""
    return _PASSWORD.sub(r"\1:***@", text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type's name, without a full stop at its end."""
    return without_password((str(error).strip() or type(error).__name__).splitlines()[0])[:200].rstrip(".")
