"""On a GPU host there may be PyTorch and what benchmarks/gpu.py lists, and nothing else that the project needs."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from random import Random

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from sklearn.datasets import load_digits

from harness.forked_commands import KILLING
from harness.kills import Killer, Moment

REPOSITORY = Path(__file__).parents[2]
INSTALL = re.compile(r"pip install (timm .*)")


def _install_line(page: str) -> list[str]:
    return INSTALL.findall((REPOSITORY / page).read_text(encoding="utf-8"))


def _modules_elsewhere() -> list[str]:
    """The modules of all packages here but PyTorch, those that benchmarks/gpu.py lists, and what these require."""
    (listed,) = _install_line("benchmarks/gpu.py")
    todo, there = ["torch", *listed.split()], set()
    while todo:
        name = canonicalize_name(todo.pop())
        if name not in there:
            there.add(name)
            with suppress(metadata.PackageNotFoundError):
                required = map(Requirement, metadata.requires(name) or ())
                todo += [one.name for one in required if not one.marker or one.marker.evaluate({"extra": ""})]
    modules = metadata.packages_distributions().items()
    return sorted(module for module, of in modules if not there & {canonicalize_name(name) for name in of})


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of processes that find no other modules than a GPU host has."""
    hidden = [module for module in _modules_elsewhere() if module != "vit_vs_cnn"]
    assert {"mlflow", "dvc", "prefect", "optuna", "pyarrow", "cv2"} <= set(hidden)
    # Python runs this file first in every process. A module that is None in sys.modules cannot be imported.
    start = f"import sys\nsys.modules |= dict.fromkeys({hidden})\n"
    (tmp_path / "start").mkdir()
    (tmp_path / "start/sitecustomize.py").write_text(start + (KILLING / "sitecustomize.py").read_text())
    path = os.pathsep.join(map(str, (tmp_path / "start", REPOSITORY / "src")))
    return os.environ | {"PYTHON": sys.executable, "PYTHONPATH": path, "VIT_VS_CNN_STATE": str(tmp_path / "state")}


def test_the_packages_to_install_are_the_same_wherever_they_are_listed() -> None:
    lines = [_install_line(page) for page in ("benchmarks/gpu.py", "docs/performance.md", "presets/scratch.yaml")]
    assert lines == [lines[0]] * 3
    assert len(lines[0]) == 1


def test_recipes_are_measured_on_an_archive_with_nothing_that_tracks_or_orchestrates(
    tmp_path: Path, bare: dict[str, str]
) -> None:
    digits, figures = load_digits(), tmp_path / "figures.json"
    with tarfile.open(tmp_path / "digits.tar", "w") as archive:
        for row, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            file = io.BytesIO()
            Image.fromarray((15 * pixels).astype(np.uint8)).save(file, "PNG")
            member = tarfile.TarInfo(f"{'train' if row < 1500 else 'test'}/{label}/{row:04}.png")
            member.size = file.tell()
            file.seek(0)
            archive.addfile(member, file)
    command = [sys.executable, "benchmarks/time_to_accuracy.py", "--preset", "demo", "--seeds", "1"]
    command += ["--set", "data.source=folder", "--set", f"data.path={tmp_path / 'digits.tar'}"]
    command += ["--accuracy", "0.3", "--set", "train.epochs=4", "--contestant", "vit", "--json", str(figures)]
    answer = subprocess.run(command, cwd=REPOSITORY, env=bare, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    (seconds,) = json.loads(figures.read_text())["vit"]["seconds"]
    (reached,) = json.loads(figures.read_text())["vit"]["seconds_to_0.3"]
    assert 0 < reached <= seconds
    assert 0.3 < json.loads(figures.read_text())["vit"]["test_accuracy"][0] <= 1


def test_all_that_needs_a_gpu_runs_in_small_on_the_cpu_and_continues_after_a_kill(
    tmp_path: Path, bare: dict[str, str]
) -> None:
    results = tmp_path / "results"
    command = [str(REPOSITORY / "benchmarks/gpu.sh"), "--smoke", "--folder", str(results)]
    unfinished = results / "accuracy-demo.draft.unfinished"
    # The first training's figures are written by two changes. The second training has ended, its figures are not there.
    killer = Killer(tmp_path, unfinished, Random(0))
    killed = killer.environment(Moment("time_to_accuracy.py", change=3))
    answer = subprocess.run(command, env=bare | killed, capture_output=True, text=True, check=False)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert killer.has_come()
    assert "accuracy-demo: ended with exit code -9" in answer.stderr
    assert answer.stderr.endswith("the same command continues with accuracy-demo.\n")
    ((key, finished),) = json.loads(unfinished.read_text()).items()
    assert key.startswith("vit 0 ")

    answer = subprocess.run(command, env=bare, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.count("skipped") == 2
    assert "vit seed 0: was finished before" in answer.stderr
    assert not unfinished.exists()
    assert not list((tmp_path / "state/checkpoints").iterdir())
    found = json.loads((results / "results.json").read_text())
    assert found["accuracy-demo"]["vit"]["seconds"] == [finished["history"][-1]["elapsed_seconds"]]
    assert 0 < found["accuracy-demo"]["resnet"]["test_accuracy"][0] <= 1
    assert found["correctness"]["killed after an epoch, resumed"]["difference"] == 0
    assert found["throughput-demo"]["vit"]["images_per_second"]["project"][0] > 0
    assert "## accuracy-demo" in (results / "results.md").read_text()


def test_no_part_starts_when_the_minutes_are_over(tmp_path: Path, bare: dict[str, str]) -> None:
    command = [str(REPOSITORY / "benchmarks/gpu.sh"), "--smoke", "--minutes", "0", "--folder", str(tmp_path)]
    answer = subprocess.run(command, env=bare, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    parts = "correctness, throughput-demo, accuracy-demo"
    assert answer.stderr == f"0 minutes are over: the same command continues with {parts}.\n"
