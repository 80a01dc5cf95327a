"""A call in a process of its own: its result, its error, its death."""

import os
import signal
import sys

import pytest

from vit_vs_cnn.core.child_process import call_in_child
from vit_vs_cnn.core.errors import RunError, UserError


def test_what_it_imports_is_not_imported_here() -> None:
    assert call_in_child(process_with_module, "turtledemo")
    assert "turtledemo" not in sys.modules


def test_its_error_is_raised_here() -> None:
    with pytest.raises(UserError, match=r"^no such file$"):
        call_in_child(fail, "no such file")


def test_a_child_that_is_killed_is_one_sentence() -> None:
    with pytest.raises(RunError, match=r"die ended without a result \(exit code -9\)"):
        call_in_child(die)


def process_with_module(name: str) -> bool:
    __import__(name)
    return name in sys.modules


def fail(sentence: str) -> None:
    raise UserError(sentence)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
