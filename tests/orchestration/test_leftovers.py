"""What killed DVC processes leave: it stops nobody."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import load_yaml

from vit_vs_cnn.orchestration.leftovers import remove_leftovers_of_dvc

LOCK = """schema: '2.0'
stages:
  prepare:
    cmd: vit-vs-cnn prepare
    deps:
    - path: data/raw
      hash: md5
      md5: 7b8d97c09b3f9ad8cd1b9f3bd7a1c5a3
      size: 12
      nfiles: 1
    outs:
    - path: data/prepared
      hash: md5
      md5: 0d599f0ec05c3bda8c3b8a68c32a1b47.dir
      size: 34
      nfiles: 2
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return tmp_path


def table_after(workspace: Path, before: Any) -> Any:
    """DVC's table of files in use, after `before`."""
    path = workspace / ".dvc" / "tmp" / "rwlock"
    path.write_text(before if isinstance(before, str) else json.dumps(before))
    remove_leftovers_of_dvc(workspace)
    return json.loads(path.read_text()) if path.exists() else None


def test_entries_of_processes_that_are_gone_or_no_dvc_are_removed(workspace: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = "import time; print('here', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, "dvc", "repro"], stdout=subprocess.PIPE) as dvc:
        assert dvc.stdout is not None
        dvc.stdout.readline()
        entries = [{"pid": pid, "cmd": "dvc repro"} for pid in (gone.pid, os.getpid(), dvc.pid)]
        table = {"read": {"a": entries, "b": entries[:2]}, "write": {"c": entries[1], "d": entries[2]}}
        assert table_after(workspace, table) == {"read": {"a": entries[2:]}, "write": {"d": entries[2]}}
        dvc.kill()


@pytest.mark.parametrize(
    "cut", ["", "{", '{"write": {"/data": {"pi', "[]", '{"read": {"a": 1}}', '{"read": {"a": [{}]}}']
)
def test_a_table_that_was_cut_off_is_removed(workspace: Path, cut: str) -> None:
    assert table_after(workspace, cut) is None


def test_a_lock_file_stays_as_it_is(workspace: Path) -> None:
    remove_leftovers_of_dvc(workspace)
    (workspace / "dvc.lock").write_text(LOCK)
    remove_leftovers_of_dvc(workspace)
    assert (workspace / "dvc.lock").read_text() == LOCK


@pytest.mark.parametrize("percent", range(0, 100, 24))
def test_after_a_lock_file_was_cut_off_dvc_reads_it_or_finds_none(workspace: Path, percent: int) -> None:
    lock = workspace / "dvc.lock"
    lock.write_text(LOCK[: len(LOCK) * percent // 100])
    remove_leftovers_of_dvc(workspace)
    if lock.exists():
        COMPILED_LOCKFILE_SCHEMA(load_yaml(lock))
