"""torch.compile: what it may change, and where it cannot work."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from safetensors.torch import load_file

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import trained
from vit_vs_cnn.data.dataset import DatasetInfo

Make = Callable[..., Settings]


def losses() -> list[float]:
    with (trained("vit", 0) / "history.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


# Compiled for each of its shapes: one block has them all.
SMALL: dict[str, Any] = {"models": {"vit": {"args": {"depth": 1}}}}


def train_vit(settings: Settings, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The stage in a process of its own, as DVC runs it: what other tests import may keep the compiler from working."""
    YAML().dump(settings.model_dump(mode="json"), Path("params.yaml"))
    command = [sys.executable, "-c", "from vit_vs_cnn.cli import program; program()", "train", "vit"]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not (os.environ.get("CXX") or shutil.which("g++")), reason="there is no C++ compiler here")
def test_a_compiled_training_comes_out_as_any_other(make_settings: Make, prepared: DatasetInfo) -> None:
    answer = train_vit(make_settings(SMALL | {"train": {"compile": False}}))
    assert answer.returncode == 0, answer.stderr
    plain, names = losses(), load_file(trained("vit", 0) / "weights.safetensors").keys()
    answer = train_vit(make_settings(SMALL | {"train": {"compile": True}}))
    assert answer.returncode == 0, answer.stderr
    assert losses() == pytest.approx(plain, abs=1e-3)
    assert load_file(trained("vit", 0) / "weights.safetensors").keys() == names


def test_where_there_is_no_compiler_it_says_so(make_settings: Make, prepared: DatasetInfo, tmp_path: Path) -> None:
    nowhere = {"CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    answer = train_vit(make_settings({"train": {"compile": True}}), **nowhere)
    assert answer.returncode == 2
    last = answer.stderr.strip().splitlines()[-1]
    assert last.startswith("error: train.compile: torch.compile does not work here (InvalidCxxCompiler: No working C++")
    assert last.endswith("); set it to false.")
