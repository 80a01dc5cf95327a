"""On a GPU host there may be PyTorch, timm and Fabric, and nothing of what tracks and orchestrates."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# A module that is None in sys.modules cannot be imported.
WITHOUT = """
import runpy, sys
sys.modules |= dict.fromkeys(("mlflow", "dvc", "prefect", "optuna"))
script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
sys.path.insert(0, "benchmarks")
runpy.run_path(script, run_name="__main__")
"""


def test_recipes_are_measured_with_nothing_that_tracks_or_orchestrates(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-c", WITHOUT, "benchmarks/time_to_accuracy.py", "--preset", "demo", "--seeds", "1"]
    command += ["--accuracy", "0.3", "--set", "train.epochs=4", "--contestant", "vit", "--json", str(figures)]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    (seconds,) = json.loads(figures.read_text())["vit"]["seconds"]
    (reached,) = json.loads(figures.read_text())["vit"]["seconds_to_0.3"]
    assert 0 < reached <= seconds
    assert 0.3 < json.loads(figures.read_text())["vit"]["test_accuracy"][0] <= 1


def test_all_that_needs_a_gpu_runs_in_small_on_the_cpu(tmp_path: Path) -> None:
    # Python runs this file first in every process of the benchmarks.
    without = 'import sys\nsys.modules |= dict.fromkeys(("mlflow", "dvc", "prefect", "optuna"))\n'
    (tmp_path / "sitecustomize.py").write_text(without)
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)}
    command = [str(REPOSITORY / "benchmarks/gpu.sh"), "--smoke", "--folder", str(tmp_path / "results")]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert results["correctness"]["killed after an epoch, resumed"]["difference"] == 0
    assert results["throughput-demo"]["vit"]["images_per_second"]["project"][0] > 0
    assert "## accuracy-demo" in (tmp_path / "results/results.md").read_text()

    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.stdout.count("skipped") == 3
