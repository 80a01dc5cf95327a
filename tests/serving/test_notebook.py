"""What `load_run` says where there is nothing to load; tests/test_pipeline.py has it with a run."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

import vit_vs_cnn
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.tracking.store import tracking_uri


def test_the_package_alone_loads_none_of_the_heavy_packages() -> None:
    code = (
        "import sys, vit_vs_cnn; print(sorted({'torch', 'mlflow', 'pandas', 'numpy', 'pydantic'} & sys.modules.keys()))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_run_that_there_is_not_is_one_sentence_with_those_that_there_are(project: Path) -> None:
    with pytest.raises(UserError, match=r"runs/pets has no comparison: none has finished yet; `vit-vs-cnn run"):
        vit_vs_cnn.load_run("pets")
    compared = project / "runs/cats/reports/compare"
    compared.mkdir(parents=True)
    (compared / "comparison.csv").touch()
    with pytest.raises(UserError, match="there are: cats;"):
        vit_vs_cnn.load_run("pets")


def test_the_model_of_other_data_is_not_that_of_the_run(project: Path) -> None:
    MlflowClient(tracking_uri()).create_registered_model("pets-classifier")
    compared = project / "reports/compare"
    compared.mkdir(parents=True)
    (compared / "comparison.csv").touch()
    run = vit_vs_cnn.load_run()
    with pytest.raises(UserError, match=f"has no registered model '{run.settings.data.name}': name one of pets-"):
        run.model()
