"""What peers.py compares, it compares alike."""

import json
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

REPOSITORY = Path(__file__).parents[2]
BENCHMARKS = REPOSITORY / "benchmarks"
# Python runs this first in every process; a module that is None in sys.modules cannot be imported.
OF_A_PEER = """
import sys
if "peer_training.py notebook" in " ".join(sys.orig_argv):
    sys.modules |= dict.fromkeys("vit_vs_cnn." + room for room in ("config", "data", "training", "tracking"))
"""


def test_a_peer_imports_nothing_of_the_project_but_the_network(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for image in range(80):
        path = tmp_path / f"images/{'train' if image < 60 else 'test'}/{'ab'[image % 2]}/{image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    (tmp_path / "sitecustomize.py").write_text(OF_A_PEER)
    path = os.pathsep.join(map(str, (tmp_path, REPOSITORY / "src")))
    command = [sys.executable, str(BENCHMARKS / "peers.py"), "--data", str(tmp_path / "images"), "--tool", "notebook"]
    command += ["--epochs", "2", "--rounds", "1", "--json", str(tmp_path / "peers.json")]
    environment = os.environ | {"PYTHONPATH": path, "VIT_VS_CNN_STATE": str(tmp_path / "state")}
    answer = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "project is (range)" in answer.stdout
    measured = json.loads((tmp_path / "peers.json").read_text())
    assert list(measured) == ["project", "notebook"]
    for tool in measured.values():
        (run,) = tool["runs"]
        first, last = run["seconds"]
        assert 0 < first < last
        assert run["images_per_second"] > 0
        assert run["peak_mb"] > 50  # PyTorch alone is more


Interval = Callable[[list[float]], tuple[float, float, float]]


@pytest.fixture(scope="module")
def interval() -> Interval:
    before = sys.path.copy()
    sys.path.insert(0, str(BENCHMARKS))
    try:
        found: Interval = runpy.run_path(str(BENCHMARKS / "peers.py"))["ratio_interval"]
        return found
    finally:
        sys.path[:] = before


@given(ratios=st.lists(st.floats(0.1, 10), min_size=3, max_size=8))
def test_ratios_have_the_t_interval_of_their_logarithms(interval: Interval, ratios: list[float]) -> None:
    middle, low, high = interval(ratios)
    expected = stats.t.interval(0.95, len(ratios) - 1, np.log(ratios).mean(), max(stats.sem(np.log(ratios)), 1e-300))
    assert (math.log(low), math.log(high)) == pytest.approx(expected, abs=1e-9)
    assert math.log(middle) == pytest.approx(np.log(ratios).mean(), abs=1e-9)


def test_fewer_than_three_ratios_have_their_range(interval: Interval) -> None:
    assert interval([1.0, 4.0]) == pytest.approx((2.0, 1.0, 4.0))
