"""One stage as a process: `dvc repro --single-item`, its lines and progress as they come, its whole tree stopped."""

import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Protocol

import psutil

from vit_vs_cnn.core.console import PROGRESS_VARIABLE, Progress, read_progress
from vit_vs_cnn.core.errors import ERROR_REPORT_VARIABLE, read_error_report
from vit_vs_cnn.core.process import exit_with_parent

_RUNS = re.compile(r"^Running stage '")
_LOCKED = re.compile(r"Unable to acquire lock|is busy, it is being blocked by")
# What DVC says to somebody who calls it by hand.
_ADVICE = re.compile(r"^(Updating lock file|To (track|enable) |\s+git add |\s+dvc config |Use `dvc push`)")
_DVC_ERROR = re.compile(r"^ERROR: (?P<text>.*)$")
_SECONDS_TO_CLEAN_UP = 6.0
_SECONDS_BETWEEN_LOCK_TRIES = 2.0
_LINES_OF_THE_END = 20

_running: set["subprocess.Popen[bytes]"] = set()
_stopping = threading.Event()
_guard = threading.Lock()


class Outcome(Enum):
    """What DVC did with a stage: run it, or skip it because nothing had changed."""

    RAN = "ran"
    CACHED = "cached"


class StageError(Exception):
    """A stage failed: one sentence, the end of its log, whose doing it was.

    `is_users` says that the sentence is the stage's own and tells a person what to do; `retryable` that trying again
    can help.
    """

    def __init__(self, sentence: str, *, log_end: str = "", is_users: bool = False, retryable: bool = False) -> None:
        super().__init__(sentence)
        self.log_end = log_end
        self.is_users = is_users
        self.retryable = retryable

    def with_log_end(self) -> str:
        """The sentence, and below it the end of the stage's log."""
        return f"{self}\n\nThe end of its log:\n{self.log_end}" if self.log_end else str(self)


class Listener(Protocol):
    """Who is told what a stage says."""

    def line(self, text: str) -> None:
        """A line of its output."""

    def progress(self, progress: Progress) -> None:
        """A step of its progress bar."""


@dataclass(frozen=True)
class Limits:
    """Seconds that a stage may take, and that it waits for another process's DVC lock."""

    timeout: float
    lock_wait: float


def run_stage(
    workspace: Path, stage: str, environment: Mapping[str, str], limits: Limits, listener: Listener, *, force: bool
) -> Outcome:
    """Have DVC bring one stage up to date, in a process group of its own.

    Raises StageError with the stage's own sentence where it left one, with DVC's where not.
    """
    patience = time.monotonic() + limits.lock_wait
    told = False
    while True:
        try:
            return _run_once(workspace, stage, environment, limits.timeout, listener, force=force)
        except _LockedOut as locked:
            if time.monotonic() > patience:
                raise StageError(
                    f"{stage}: another DVC process holds its lock for more than {limits.lock_wait:g} s "
                    "(flow.lock_wait_seconds); end it, or wait and start again.",
                    log_end=locked.log_end,
                    is_users=True,
                    retryable=True,
                ) from None
            if not told:
                listener.line("another DVC process holds the lock; waiting for it")
                told = True
            _stopping.wait(_SECONDS_BETWEEN_LOCK_TRIES)


def stop_all() -> None:
    """End every stage that this process runs, with all processes they started, and let no other begin.

    They are interrupted, so that they can close what they have open, and killed where that takes too long.
    """
    _stopping.set()
    with _guard:
        processes = list(_running)
    for thread in [threading.Thread(target=_stop, args=(process,)) for process in processes]:
        thread.start()
    for process in processes:
        process.wait()


def is_stopping() -> bool:
    """Whether stop_all was called."""
    return _stopping.is_set()


class _LockedOut(Exception):  # noqa: N818
    def __init__(self, log_end: str) -> None:
        super().__init__()
        self.log_end = log_end


def _run_once(
    workspace: Path, stage: str, environment: Mapping[str, str], timeout: float, listener: Listener, *, force: bool
) -> Outcome:
    if is_stopping():
        raise StageError(f"{stage}: stopped before it began.")
    failure = workspace / ".dvc" / "tmp" / f"failure-{stage}.json"
    failure.parent.mkdir(exist_ok=True)
    failure.unlink(missing_ok=True)
    ran, locked, error = False, False, ""
    end: deque[str] = deque(maxlen=_LINES_OF_THE_END)
    with _started(workspace, stage, {**environment, ERROR_REPORT_VARIABLE: str(failure)}, force=force) as process:
        timed_out = threading.Event()

        def stop_in_time() -> None:
            timed_out.set()
            _stop(process)

        timer = threading.Timer(timeout, stop_in_time)
        timer.start()
        try:
            for line in _lines(process.stdout):
                progress = read_progress(line)
                if progress is not None:
                    listener.progress(progress)
                    continue
                if _ADVICE.match(line):
                    continue
                ran = ran or bool(_RUNS.match(line))
                locked = locked or bool(_LOCKED.search(line))
                found = _DVC_ERROR.match(line)
                error = found["text"] if found else error
                end.append(line)
                listener.line(line)
            code = process.wait()
        finally:
            timer.cancel()
            with _guard:
                _running.discard(process)
    if code == 0:
        return Outcome.RAN if ran else Outcome.CACHED
    log_end = "\n".join(end)
    if is_stopping():
        raise StageError(f"{stage}: stopped; starting the run again continues it.", log_end=log_end)
    if timed_out.is_set():
        raise StageError(
            f"{stage}: stopped because it took longer than {timeout / 60:g} min (flow.timeout_minutes); "
            "raise that limit and start the run again, it continues.",
            log_end=log_end,
        )
    left = read_error_report(failure)
    if left is not None:
        raise StageError(left.message, log_end=log_end, is_users=True, retryable=left.retryable)
    if locked:
        raise _LockedOut(log_end)
    last = error or next(reversed(end), f"DVC ended with exit code {code}")
    raise StageError(f"{stage}: {last.strip()}", log_end=log_end)


def _started(workspace: Path, stage: str, environment: Mapping[str, str], *, force: bool) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        exit_with_parent("dvc", "--wait-for-lock", "repro", "--single-item", *(["--force"] * force), stage),
        cwd=workspace,
        env={**environment, PROGRESS_VARIABLE: "1", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    with _guard:
        _running.add(process)
    return process


def _lines(stream: IO[bytes] | None) -> Iterator[str]:
    """The non-empty lines of a stream as they end, by a line feed or, as progress bars do, a carriage return."""
    assert stream is not None
    rest = b""
    while chunk := os.read(stream.fileno(), 65_536):
        *whole, rest = re.split(rb"[\r\n]", rest + chunk)
        yield from filter(None, (line.decode(errors="replace").rstrip() for line in whole))
    if rest:
        yield rest.decode(errors="replace").rstrip()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    try:
        below = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return
    # psutil must not wait for the leader: it would take the exit code away from the thread that reads the output.
    deadline = time.monotonic() + _SECONDS_TO_CLEAN_UP
    with suppress(subprocess.TimeoutExpired):
        process.wait(_SECONDS_TO_CLEAN_UP)
    _, alive = psutil.wait_procs(below, timeout=max(0.0, deadline - time.monotonic()))
    for each in alive:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    if process.poll() is None:
        process.kill()
