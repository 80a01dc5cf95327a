"""Processes end with their parent, and a tree of them ends as a whole."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.small_project import wait_for
from vit_vs_cnn.core.process import ProcessIdentity, is_orphan, stop_tree

SLEEPER = """
import os, signal, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1] + ".draft", "w").write(str(os.getpid()))
os.rename(sys.argv[1] + ".draft", sys.argv[1])
time.sleep(1000)
"""


def pid_in(path: Path) -> int:
    wait_for(path.is_file)
    return int(path.read_text())


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def tree(tmp_path: Path, *words: str) -> subprocess.Popen[bytes]:
    """A process with a child, which has a child that sleeps."""
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPER!r}, *sys.argv[1:]])"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {start!r}, *sys.argv[1:]])"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "pid"), *words], start_new_session=True, stderr=subprocess.DEVNULL
    )


def test_a_tree_that_obeys_ends_without_the_grace_period(tmp_path: Path) -> None:
    process = tree(tmp_path)
    grandchild = pid_in(tmp_path / "pid")
    start = time.monotonic()
    stop_tree(process, grace_seconds=900)
    assert time.monotonic() - start < 600
    assert process.poll() is not None
    assert not is_running(grandchild)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stubborn_grandchild_is_killed_after_the_grace_period(tmp_path: Path, sent: signal.Signals) -> None:
    process = tree(tmp_path, "stubborn")
    grandchild = pid_in(tmp_path / "pid")
    stop_tree(process, sent, grace_seconds=1)
    assert process.poll() is not None
    wait_for(lambda: not is_running(grandchild))


def test_stopping_a_tree_that_has_ended_does_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait()
    stop_tree(process)
    assert process.returncode == 0


def test_a_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    code = (
        "import subprocess, sys; from vit_vs_cnn.core.process import exit_with_parent\n"
        "subprocess.run(exit_with_parent('sleeper', sys.argv[1]), start_new_session=True)"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "pid")], env=os.environ | {"PYTHONPATH": path}
    )
    child = pid_in(tmp_path / "pid")
    assert is_running(child)
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_running(child))


def test_a_stage_ends_when_dvc_is_killed(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(f"from vit_vs_cnn.core.process import exit_with_dvc\nexit_with_dvc()\n{SLEEPER}")
    code = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], start_new_session=True)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "DVC_STAGE": "train@vit-0"}
    command = [sys.executable, "-c", code, str(tmp_path / "stage.py"), str(tmp_path / "pid")]
    dvc = subprocess.Popen(command, env=environment)
    stage = pid_in(tmp_path / "pid")
    assert not is_orphan(stage)
    dvc.kill()
    dvc.wait()
    wait_for(lambda: not is_running(stage))


def test_an_identity_does_not_change_with_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    current, booted = ProcessIdentity.current(), psutil.boot_time()
    # What the operating system says when somebody has set the clock back by an hour.
    monkeypatch.setattr("psutil.boot_time", lambda: booted - 3600)
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted - 3600)
    assert not current.is_gone()


def test_an_identity_is_gone_when_its_process_has_ended_or_its_id_is_anothers() -> None:
    current = ProcessIdentity.current()
    assert current.host == socket.gethostname()
    assert not current.is_gone()
    assert replace(current, start=current.start - 100).is_gone()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert replace(current, pid=process.pid).is_gone()
    # What runs elsewhere cannot be checked.
    assert not replace(current, host="another", pid=process.pid).is_gone()
