"""A function called in a process of its own: what it imports and allocates is gone when it returns."""

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from vit_vs_cnn.core.errors import RunError, UserError
from vit_vs_cnn.core.process import exit_with_parent, stop_tree

_Result = TypeVar("_Result")


def call_in_child(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call a function of a module in a new process and return its result, or raise its exception.

    Function, arguments and result must be picklable. Raises RunError where the process ends without a result.
    """
    answers, answer = os.pipe()
    command = exit_with_parent(__name__, str(answer))
    # In a session of its own, where Ctrl-C does not reach it: it is killed where this process does not wait any longer.
    child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(answer,), start_new_session=True)
    os.close(answer)  # the child's alone, so that its end is seen here
    try:
        assert child.stdin is not None
        with os.fdopen(answers, "rb") as reader:
            with suppress(BrokenPipeError), child.stdin:
                child.stdin.write(pickle.dumps((function, arguments)))
            written = reader.read()
        code = child.wait()
    except BaseException:
        stop_tree(child, signal.SIGKILL)
        raise
    if not written:
        raise RunError(
            f"the process of {function.__name__} ended without a result (exit code {code}); where that is "
            f"{-signal.SIGKILL}, the system killed it, perhaps for want of memory."
        )
    result, error = pickle.loads(written)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _main() -> None:
    function, arguments = pickle.loads(sys.stdin.buffer.read())
    outcome: tuple[Any, Exception | None]
    try:
        outcome = (function(*arguments), None)
    except Exception as error:
        if not isinstance(error, UserError | RunError):
            traceback.print_exc()
        outcome = (None, error)
    with os.fdopen(int(sys.argv[1]), "wb") as answer:
        answer.write(_pickled(outcome))


def _pickled(outcome: tuple[Any, Exception | None]) -> bytes:
    try:
        written = pickle.dumps(outcome)
        pickle.loads(written)
    except Exception as failure:  # many an exception of a library cannot be made again from its arguments
        error = outcome[1] or failure
        return pickle.dumps((None, RunError(f"{type(error).__name__}: {error}")))
    return written


if __name__ == "__main__":
    _main()
