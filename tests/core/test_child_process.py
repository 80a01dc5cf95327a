"""A call in a process of its own: its result, its error, its death."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from vit_vs_cnn.core.child_process import call_in_child
from vit_vs_cnn.core.errors import RunError, UserError


def test_what_it_imports_is_not_imported_here() -> None:
    assert call_in_child(process_with_module, "turtledemo")
    assert "turtledemo" not in sys.modules


def test_its_error_is_raised_here() -> None:
    with pytest.raises(UserError, match=r"^no such file$"):
        call_in_child(fail, "no such file")


def test_an_error_that_cannot_be_made_again_is_named() -> None:
    with pytest.raises(RunError, match=r"^OddError: both of two$"):
        call_in_child(fail_oddly)


def test_what_it_started_ends_where_nobody_waits_any_longer() -> None:
    waits = (
        f"import subprocess; from {call_in_child.__module__} import *; call_in_child(subprocess.call, ['sleep', '600'])"
    )
    parent = subprocess.Popen([sys.executable, "-c", waits], stderr=subprocess.DEVNULL)
    tree = psutil.Process(parent.pid)
    started: list[psutil.Process] = []
    while not any(one.name() == "sleep" for one in started):
        assert parent.poll() is None
        started = tree.children(recursive=True)
    parent.send_signal(signal.SIGINT)
    parent.wait(60)
    assert psutil.wait_procs(started, 60)[1] == []


def test_a_child_that_is_killed_is_one_sentence() -> None:
    with pytest.raises(RunError, match=r"die ended without a result \(exit code -9\)"):
        call_in_child(die)


def process_with_module(name: str) -> bool:
    __import__(name)
    return name in sys.modules


def fail(sentence: str) -> None:
    raise UserError(sentence)


class OddError(Exception):
    def __init__(self, *, first: str, second: str) -> None:
        super().__init__(f"{first} of {second}")


def fail_oddly() -> None:
    raise OddError(first="both", second="two")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
