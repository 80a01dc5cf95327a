"""One stage as a process: `dvc repro --single-item`, its output as it comes, its whole process tree stopped."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from vit_vs_cnn.core.console import PROGRESS_VARIABLE, read_progress
from vit_vs_cnn.core.errors import ERROR_REPORT_VARIABLE, RunError, TransientError, UserError, read_error_report
from vit_vs_cnn.core.process import exit_with_parent, stop_tree
from vit_vs_cnn.orchestration.progress import StageOutput

# As botocore says it when DVC asks a store for the data that a stage depends on.
_STORE_UNREACHABLE = re.compile(
    r"Could not connect to the endpoint URL|Connection was closed before|timeout on endpoint"
)
_RUNS = re.compile(r"^Running stage '")
_LOCKED = re.compile(r"Unable to acquire lock|is busy, it is being blocked by")
# What DVC says to a person who calls it by hand.
_ADVICE = re.compile(r"^(Updating lock file|To (track|enable) |\s+git add |\s+dvc config |Use `dvc push`)")
_DVC_ERROR = re.compile(r"^ERROR: ")
# A shell adds 128 to the signal that ended its command.
_EXIT_CODE = re.compile(r"failed to run: .*, exited with (-?\d+)$")
_SHELL_SIGNALS = range(129, 160)
_SECONDS_BETWEEN_LOCK_TRIES = 2.0
_LINES_OF_LOG_END = 20

_running: set["subprocess.Popen[str]"] = set()
_stopping = threading.Event()
_guard = threading.Lock()


class StageResult(Enum):
    """What DVC did with a stage: run it, or skip it because nothing had changed."""

    RAN = "ran"
    CACHED = "cached"


@dataclass(frozen=True)
class StageCommand:
    """A stage to run: where, in which environment, and the seconds that it may take and may wait for DVC's lock."""

    workspace: Path
    stage: str
    environment: Mapping[str, str]
    timeout: float
    lock_wait: float
    force: bool = False


def run_stage(command: StageCommand, output: StageOutput) -> StageResult:
    """Have DVC bring one stage up to date, in its own process group.

    Raises UserError with the stage's own sentence where it left one (TransientError where the same stage may succeed
    later), RunError with DVC's where not; the end of the stage's log is a note of the exception.
    """
    deadline = time.monotonic() + command.lock_wait
    result = _run_once(command, output)
    if result is None:
        output.say("another DVC process holds the lock; waiting for it")
    while result is None:
        if time.monotonic() > deadline:
            raise TransientError(
                f"{command.stage}: another DVC process holds its lock for more than {command.lock_wait:g} s "
                "(flow.lock_wait_seconds); end it, or wait and start again."
            )
        _stopping.wait(_SECONDS_BETWEEN_LOCK_TRIES)
        result = _run_once(command, output)
    return result


def stop_all() -> None:
    """Stop every stage that this process runs, with all processes they started, and let no other begin.

    They are interrupted, so that they can close what they have open, and killed where that takes too long.
    """
    with _guard:
        _stopping.set()
        stops = [threading.Thread(target=stop_tree, args=(process,)) for process in _running]
    for stop in stops:
        stop.start()
    for stop in stops:
        stop.join()


def is_stopping() -> bool:
    """Whether stop_all was called."""
    return _stopping.is_set()


def _run_once(command: StageCommand, output: StageOutput) -> StageResult | None:
    """The result of `dvc repro`, None where another DVC process holds the lock."""
    report = command.workspace / ".dvc" / "tmp" / f"error-{command.stage}.json"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    start = time.monotonic()
    lines: list[str] = []
    with _start(command, report) as process:
        timer = threading.Timer(command.timeout, stop_tree, (process,))
        timer.start()
        threading.Thread(target=_end_orphans, args=(process,), daemon=True).start()
        try:
            for text in process.stdout or ():
                line = text.rstrip()
                progress = read_progress(line)
                if progress is not None:
                    output.progress(progress)
                elif line and not _ADVICE.match(line):
                    lines.append(line)
                    output.line(line)
            process.wait()
        finally:
            timer.cancel()
            with _guard:
                _running.discard(process)
    if process.returncode == 0:
        return StageResult.RAN if any(map(_RUNS.match, lines)) else StageResult.CACHED
    stage, reported = command.stage, read_error_report(report)
    error: UserError | RunError
    if is_stopping():
        error = RunError(f"{stage}: stopped; starting the run again continues it.")
    elif time.monotonic() - start >= command.timeout:
        error = RunError(
            f"{stage}: stopped because it took longer than {command.timeout / 60:g} min (flow.timeout_minutes); "
            "raise that limit and start the run again, it continues."
        )
    elif reported is not None:
        error = reported
    elif any(map(_LOCKED.search, lines)):
        return None
    elif (killed_by := _killed_by(process.returncode, lines)) is not None:
        error = TransientError(f"{stage}: its process was killed (signal {killed_by}).")
    else:
        said = [line for line in lines if _DVC_ERROR.match(line)] or lines
        last = said[-1] if said else f"DVC ended with exit code {process.returncode}"
        error_type = TransientError if any(map(_STORE_UNREACHABLE.search, said)) else RunError
        error = error_type(f"{stage}: {_DVC_ERROR.sub('', last)}")
    error.add_note("\n".join(["The end of its log:", *lines[-_LINES_OF_LOG_END:]]))
    raise error


def _end_orphans(process: "subprocess.Popen[str]") -> None:
    """End what a killed DVC process leaves running: nobody would record its outputs, and its output stays open."""
    if process.wait() < 0:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _killed_by(returncode: int, lines: list[str]) -> int | None:
    """The signal that killed DVC or the stage's own process; None where they ended by themselves."""
    codes = [returncode, *(int(found[1]) for found in map(_EXIT_CODE.search, lines) if found)]
    signals = [-code if code < 0 else code - 128 for code in codes if code < 0 or code in _SHELL_SIGNALS]
    return signals[0] if signals else None


def _start(command: StageCommand, report: Path) -> "subprocess.Popen[str]":
    force = ["--force"] if command.force else []
    variables = {ERROR_REPORT_VARIABLE: str(report), PROGRESS_VARIABLE: "1", "PYTHONUNBUFFERED": "1"}
    with _guard:
        if is_stopping():
            raise RunError(f"{command.stage}: stopped before it began.")
        process = subprocess.Popen(
            exit_with_parent("dvc", "--wait-for-lock", "repro", "--single-item", *force, command.stage),
            cwd=command.workspace,
            env={**command.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Text mode also ends a line at the carriage return of a progress bar.
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        _running.add(process)
    return process
