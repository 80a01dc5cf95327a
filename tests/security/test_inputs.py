"""Generated hostile archives and images: prepared, skipped or refused in one sentence, in bounded memory."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from harness.counts import asked
from harness.hostile_files import good_images, write_tar, write_zip
from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.prepare import prepare
from vit_vs_cnn.data.sources.folder import open_folder

# What the process that reads them may have of its own.
MEMORY_MB = 1500


def hostile_files(folder: Path, count: int) -> Any:
    """What became of them, in a process that may have so much memory and no more."""
    limited = f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_DATA, ({MEMORY_MB << 20},) * 2); "
    limited += "sys.argv = ['', *sys.argv[1:]]; runpy.run_module('harness.try_hostile_files', run_name='__main__')"
    command = [sys.executable, "-c", limited, str(folder), str(count), "0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


def test_hostile_archives_and_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """VIT_VS_CNN_INPUTS=5000 is the whole measure."""
    count = asked("VIT_VS_CNN_INPUTS", 60)
    found = hostile_files(tmp_path, count)
    with capsys.disabled():
        print(
            f"\n{count} inputs: {found['outcomes']}; peak {found['peak_mb']:.0f} MB, slowest {found['slowest']:.1f} s"
        )
    assert found["failures"] == []
    expected = {"archive refused", "archive prepared", "image not readable", "image decoded"}
    assert found["outcomes"].keys() <= expected
    assert sum(found["outcomes"].values()) == count
    assert found["slowest"] < 20


def prepared(path: Path, folder: Path) -> bool:
    """Whether it could be prepared; it may be refused in a sentence, and nothing else may happen."""
    settings = DataSettings(source="folder", name="hostile", path=str(path), image_size=16, on_bad="skip")
    with suppress(UserError):
        prepare(settings, folder)
        return True
    return False


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_an_archive_that_is_cut_off_anywhere(tmp_path: Path, kind: str) -> None:
    """At every per cent with VIT_VS_CNN_INPUTS."""
    whole, cut = tmp_path / f"a.{kind}", tmp_path / f"cut.{kind}"
    files = good_images(Random(0))
    write_zip(whole, files) if kind == "zip" else write_tar(whole, files, "w:" + kind.partition(".")[2])
    assert prepared(whole, tmp_path / "out")
    content = whole.read_bytes().rstrip(b"\0")  # a tar ends in kilobytes of nothing
    for percent in range(0, 100, 1 if "VIT_VS_CNN_INPUTS" in os.environ else 20):
        cut.write_bytes(content[: len(content) * percent // 100])
        assert not prepared(cut, tmp_path / "out"), percent


def test_very_many_entries_and_very_deep_folders(tmp_path: Path) -> None:
    """100,000 entries with VIT_VS_CNN_INPUTS."""
    files, entries = good_images(Random(0)), 100_000 if "VIT_VS_CNN_INPUTS" in os.environ else 10_000
    many = write_zip(tmp_path / "many.zip", files | {f"cat/notes/{number}.txt": b"" for number in range(entries)})
    assert prepared(many, tmp_path / "out")
    deep = write_zip(tmp_path / "deep.zip", files | {"cat/" + "x/" * 20_000 + "1.png": next(iter(files.values()))})
    with pytest.raises(UserError, match="folders deep"):
        open_folder(deep)
