"""The real pipeline in a temporary clone: DVC, every stage as its own process, MLflow, the registry."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient

from factories import REPOSITORY
from vit_vs_cnn.tracking.outbox import Header

TINY_OVERRIDES = [
    "train.epochs=2",
    "train.precision=32-true",
    "recipe.batch_size=64",
    "explain.images=2",
    "robustness.images=20",
    "models.vit.args={patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}",
    "models.resnet.args={channels: [8, 8, 16, 16], stem_width: 8}",
]

# A newcomer's machine: git has no name of a user.
NOBODY = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def command(*arguments: str) -> list[str]:
    """`vit-vs-cnn …` by this interpreter."""
    return [sys.executable, "-c", "from vit_vs_cnn.cli import program; program()", *arguments]


def call(folder: Path, arguments: Sequence[str], code: int = 0) -> str:
    scripts = str(Path(sys.executable).parent)
    # Counting lines would take a third of the time; every stage is also tested in the tests' own process.
    foreign = ("MLFLOW_", "PREFECT_", "VIT_VS_CNN", "TESTS_COVERAGE_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    answer = subprocess.run(
        arguments,
        cwd=folder,
        env=kept | NOBODY | {"PATH": f"{scripts}{os.pathsep}{kept['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == code, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


def dvc(folder: Path, *arguments: str, code: int = 0) -> str:
    return call(folder, [sys.executable, "-m", "dvc", *arguments], code)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    return call(folder, ["git", *identity, *arguments])


def stages_that_ran(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """The project as it stands, tiny and on digits, the whole pipeline run once in place."""
    folder = tmp_path_factory.mktemp("clone") / "project"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPOSITORY, capture_output=True, check=True
    )
    for name in filter(None, files.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    git(folder, "init", "--quiet")
    overrides = [part for override in TINY_OVERRIDES for part in ("--set", override)]
    text = call(folder, command("params", "--preset", "demo", *overrides))
    (folder / "params.yaml").write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a small project")
    (folder / "mlruns").mkdir(exist_ok=True)
    shutil.copy(empty_store, folder / "mlruns")
    (folder / "first-run.log").write_text(dvc(folder, "repro"))
    return folder


@pytest.fixture
def client(clone: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{clone}/mlruns/mlflow.db")


def test_every_stage_ran_and_left_the_tree_clean(clone: Path) -> None:
    ran = stages_that_ran((clone / "first-run.log").read_text())
    assert ran == {
        "prepare", "eda", "cost", "compare", "register",
        *(f"{stage}@{name}" for stage in ("tune", "robustness", "explain") for name in ("vit", "resnet")),
        *(f"{stage}@{name}-0" for stage in ("train", "evaluate") for name in ("vit", "resnet")),
    }  # fmt: skip
    (clone / "first-run.log").rename(clone.parent / "first-run.log")
    assert git(clone, "status", "--short").split() == ["??", "dvc.lock"]
    git(clone, "add", "dvc.lock")
    git(clone, "commit", "--quiet", "--message", "locked")


def test_running_again_does_nothing(clone: Path) -> None:
    assert stages_that_ran(dvc(clone, "repro")) == set()


def test_the_report_is_one_file_that_says_what_was_measured(clone: Path) -> None:
    html = (clone / "reports/compare/report.html").read_text()
    for name in ("vit", "resnet"):
        metrics = json.loads((clone / f"evaluated/{name}/0/metrics.json").read_text())
        assert f"{metrics['accuracy']:.1%}".rstrip("%") in html.replace("\u202f", "")
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*\.(?:png|css|js)"', html)
    assert "Published, not measured" not in html  # of CIFAR-10, and these are digits
    assert len(html.encode()) < 3_000_000  # to be mailed


def test_dvc_shows_metrics_and_plots(clone: Path) -> None:
    metrics = json.loads(dvc(clone, "metrics", "show", "--json"))[""]["data"]
    assert "accuracy" in json.dumps(metrics["evaluated/vit/0/metrics.json"])
    assert metrics["cost/vit.json"]["data"]["latency_p50_ms"] > 0
    plots = dvc(clone, "plots", "show", "--json")
    for path in ("trained/vit/0/history.csv", "evaluated/resnet/0/confusion.png", "reports/eda/samples.png"):
        assert path in plots


def test_mlflow_has_the_runs_the_models_and_the_links(clone: Path, client: MlflowClient) -> None:
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {"prepare", "eda", "train-vit-0", "train-resnet-0", "compare"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for name in ("vit", "resnet"):
        run = runs[f"train-{name}-0"]
        measured = json.loads((clone / f"evaluated/{name}/0/metrics.json").read_text())
        assert run.data.metrics["test/accuracy"] == pytest.approx(measured["accuracy"])
        assert run.data.metrics["test/ece"] == pytest.approx(measured["expected_calibration_error"])
        assert run.data.metrics.keys() >= {"best/val_accuracy", "cost/seconds_per_epoch", "cost/latency_p95_ms"}
        assert run.data.params["train.epochs"] == "2"
        assert {used.dataset.name for used in run.inputs.dataset_inputs} == {
            "digits-train",
            "digits-val",
            "digits-test",
        }
        folders = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        assert {"lineage", "evaluation", "explanation"} <= folders
        images = [image.path for image in client.list_artifacts(run.info.run_id, "images")]
        assert sum("same_images+step+" in image and image.endswith(".png") for image in images) == 2
        assert re.match(r"\d+\.\d\d% of \d+ test images right", run.data.tags["mlflow.note.content"])
        logged = client.get_logged_model(run.outputs.model_outputs[0].model_id)
        assert "test/accuracy" in {metric.key for metric in logged.metrics}
    assert {"data/images_train", "data/images_test"} <= runs["prepare"].data.metrics.keys()
    assert "eda/classes" in runs["eda"].data.metrics
    assert {"compare/accuracy_vit", "compare/p_value_vit_resnet"} <= runs["compare"].data.metrics.keys()
    compared = runs["compare"].data.tags
    assert compared["run.vit"] == runs["train-vit-0"].info.run_id
    assert compared["run.resnet"] == runs["train-resnet-0"].info.run_id
    artifacts = {artifact.path for artifact in client.list_artifacts(runs["compare"].info.run_id, "comparison")}
    assert "comparison/report.html" in artifacts


def test_the_better_by_validation_is_the_challenger_and_answers_as_evaluated(clone: Path, client: MlflowClient) -> None:
    import mlflow
    import numpy as np
    import pandas as pd

    record = json.loads((clone / "registered/versions.json").read_text())
    accuracies = {
        name: json.loads((clone / f"trained/{name}/0/training.json").read_text())["val_accuracy"]
        for name in ("vit", "resnet")
    }
    assert record["challenger"] == max(accuracies, key=lambda name: accuracies[name])
    version = client.get_model_version_by_alias("digits-classifier", "challenger")
    assert int(version.version) == record["versions"][record["challenger"]]
    assert version.tags["contestant"] == record["challenger"]
    assert {"data.digest", "accuracy", "accuracy_low", "mlflow.source.git.commit"} <= version.tags.keys()
    mlflow.set_tracking_uri(f"sqlite:///{clone}/mlruns/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/digits-classifier@challenger")
    images = np.load(clone / "data/prepared/test/images.npy")
    expected = pd.read_parquet(clone / f"evaluated/{record['challenger']}/0/predictions.parquet")
    np.testing.assert_allclose(
        model.predict(images), expected[[f"p_{index}" for index in range(10)]].to_numpy(), atol=1e-5
    )


def test_a_version_is_promoted_and_its_evidence_rebuilt_bit_for_bit(clone: Path) -> None:
    assert "challenger" in call(clone, command("registry", "list"))
    strict = call(clone, command("registry", "promote", "--dry-run"), code=3)
    assert "accuracy" in strict
    promoted = call(clone, command("registry", "promote", "--force", "--reason", "two epochs only"))
    assert "is the champion now by force; before: none." in promoted
    assert "promoted, forced" in call(clone, command("registry", "history"))
    assert call(clone, command("registry", "show", "champion", "--card")).startswith("# ")
    # Its training delivers what it records to a store of its own, and nothing else.
    pending = clone / ".vit-vs-cnn/outbox/pending"
    pending.mkdir(parents=True)
    Header(key="pending", experiment="another", name="pending", creates_run=True).write(pending / "header.json")
    verified = call(clone, command("registry", "verify", "champion", "--retrain"))
    assert "DIFFERS" not in verified
    assert re.search(r"trained again: predicted classes +same +\d+ +0 differ", verified), verified
    assert git(clone, "status", "--short") == ""
    assert not list((clone / "runs").glob("verify-*"))
    assert (pending / "header.json").is_file()
    shutil.rmtree(pending)


def test_an_isolated_run_changes_one_model_only_and_leaves_the_working_tree_alone(clone: Path) -> None:
    before = (clone / "dvc.lock").read_bytes()
    arguments = ["run", "--name", "faster", "--set", "models.resnet.recipe.optimizer.lr=0.008"]
    output = call(clone, command(*arguments))
    # What did not change comes from the shared cache.
    assert "models.resnet.recipe.optimizer.lr 0.003 → 0.008" in output
    assert set(re.findall(r"^(\S+) +\d+\.\d s  \S", output, re.MULTILINE)) == {
        "tune@resnet", "train@resnet-0", "evaluate@resnet-0", "robustness@resnet", "explain@resnet",
        "cost", "compare", "register",
    }  # fmt: skip
    assert "report    runs/faster/reports/compare/report.html" in output
    assert (clone / "runs/faster/reports/compare/report.html").is_file()
    assert git(clone, "status", "--short") == ""
    assert (clone / "dvc.lock").read_bytes() == before
    shown = dvc(clone, "exp", "show", "--csv", "--no-pager")
    assert "faster" in shown
    assert "0.008" in shown
    assert "time      " in output
    again = call(clone, command(*arguments, "--json"))
    assert "0 stages ran, 15 were cached" in again
    record = json.loads(again[again.index("{") : again.rindex("}") + 1])
    assert (len(record["ran"]), len(record["cached"])) == (0, 15)
    measured = json.loads((clone / "runs/faster/evaluated/vit/0/metrics.json").read_text())
    accuracies = {row["contestant"]: row["accuracy"] for row in record["contestants"]}
    assert accuracies["vit"] == pytest.approx(measured["accuracy"])
    assert record["answer"] in again
    assert record["mlflow"]["runs"].keys() == {"train-vit-0", "train-resnet-0"}


def test_the_notebook_of_the_documentation_runs(clone: Path) -> None:
    cells = json.loads((REPOSITORY / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert 'load_run("demo")' in code
    code = (
        code.replace('load_run("demo")', 'load_run("faster")')
        + """
assert list(run.comparison.index) == ["vit", "resnet"]
assert run.history.groupby("contestant").size().to_dict() == {"vit": 2, "resnet": 2}
right = run.predictions.groupby("contestant")["correct"].mean()
assert (right - run.comparison["accuracy"]).abs().max() < 1e-9
probabilities = model(images)
assert list(probabilities.columns) == [str(digit) for digit in range(10)] and len(probabilities) == 3
from PIL import Image
Image.fromarray(images[0]).save("digit.png")
assert (model(["digit.png"]).loc["digit.png"] - probabilities.loc[0]).abs().max() < 1e-5
"""
    )
    call(clone, [sys.executable, "-c", code])
    (clone / "digit.png").unlink()


def test_an_isolated_run_that_fails_says_the_stages_own_sentence(clone: Path) -> None:
    bad = command("run", "--name", "bad", "--set", "data.source=folder")
    output = call(clone, bad, code=2)
    assert output.strip().splitlines()[-1].startswith("error: data.path: data/raw/digits.md is ")
    assert git(clone, "status", "--short") == ""


def test_prepared_data_travel_through_a_remote(clone: Path, tmp_path: Path) -> None:
    remote, other = tmp_path / "remote", tmp_path / "other"
    dvc(clone, "remote", "add", "--local", "--force", "--default", "store", str(remote))
    dvc(clone, "push", "prepare")
    git(tmp_path, "clone", "--quiet", str(clone), str(other))
    dvc(other, "remote", "add", "--local", "--default", "store", str(remote))
    dvc(other, "pull", "prepare")
    for name in ("dataset.json", "train/images.npy", "test/labels.npy"):
        assert (other / "data/prepared" / name).read_bytes() == (clone / "data/prepared" / name).read_bytes()
