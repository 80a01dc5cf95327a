"""What a stage loads before it does its own work: every package costs each stage of each run."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "mlflow", "torch._dynamo", "lightning_fabric", "sklearn", "scipy.stats", "optuna", "prefect", "dvc")


@pytest.mark.parametrize(
    ("stages", "allowed"),
    [
        (("prepare", "eda", "tune"), set()),
        (("evaluate", "robustness", "cost", "explain", "compare"), {"torch"}),
        (("train",), {"torch", "torch._dynamo", "lightning_fabric"}),
        (("register",), set()),
    ],
)
def test_a_stage_loads_no_heavy_package_that_it_does_not_need(stages: tuple[str, ...], allowed: set[str]) -> None:
    imports = [f"import vit_vs_cnn.stages.{stage}" for stage in stages]
    code = "; ".join(["import sys", *imports, f"print(*(sys.modules.keys() & {HEAVY}))"])
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(answer.stdout.split()) <= allowed
