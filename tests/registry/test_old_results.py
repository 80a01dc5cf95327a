"""What version 0.1.0 left behind still predicts, is served, explained, promoted and verified (see tests/fixtures)."""

import csv
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from PIL import Image
from ruamel.yaml import YAML

from factories import REPOSITORY, TINY
from harness.model_server import Store, serving
from vit_vs_cnn.cli import main
from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.core import paths
from vit_vs_cnn.data import prepare as prepare_module
from vit_vs_cnn.data.dataset import read_split
from vit_vs_cnn.data.sources.digits import open_digits
from vit_vs_cnn.data.sources.source import Source
from vit_vs_cnn.evaluation.results import Predictions, read_evaluation
from vit_vs_cnn.registry.loading import trust
from vit_vs_cnn.registry.versions import Registry
from vit_vs_cnn.stages import prepare
from vit_vs_cnn.tracking.store import experiment
from vit_vs_cnn.training.results import read_summary

NAME = "tiny-classifier"
# The stages that `registry verify` restores, as version 0.1.0 had them, without the code that they depended on.
OLD_DVC_YAML = """
stages:
  prepare:
    cmd: vit-vs-cnn prepare
    params: [data]
    deps:
      - ${data.path}
    outs:
      - data/prepared
  tune:
    foreach: ${models}
    do:
      cmd: vit-vs-cnn tune ${key}
      params: [seed, data.name, train, "models.${key}", recipe, tune]
      deps:
        - data/prepared/train
      outs:
        - tuned/${key}.yaml
"""

Command = Callable[..., str]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive."""
    folder = tmp_path_factory.mktemp("results")
    with tarfile.open(REPOSITORY / "tests/fixtures/results-0.1.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "results-0.1"


@pytest.fixture(scope="module")
def recorded(results: Path) -> Predictions:
    return read_evaluation(results / "evaluated/vit").predictions


@pytest.fixture(scope="module")
def old_project(results: Path, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose commit, DVC cache and store are those of 0.1.0, and whose settings are those of today.

    Version 1 is champion, version 2, the same model registered once more, is challenger.
    """
    folder = tmp_path_factory.mktemp("old") / "project"
    (folder / "mlruns").mkdir(parents=True)
    shutil.copy(empty_store, folder / "mlruns")
    shutil.copytree(REPOSITORY / "data", folder / "data", ignore=shutil.ignore_patterns("prepared", "*.gz"))
    shutil.copytree(results / "tuned", folder / "tuned")
    shutil.copy(results / "params.yaml", folder)
    shutil.copy(REPOSITORY / ".gitignore", folder)
    (folder / "dvc.yaml").write_text(OLD_DVC_YAML)
    with pytest.MonkeyPatch.context() as patch:
        enter(patch, folder)
        run("git", "init", "--quiet")
        run(sys.executable, "-m", "dvc", "init", "--quiet")
        patch.setattr(prepare_module, "open_source", lambda data: digits_as_0_1_split_them(data.image_size))
        prepare.run(parse_settings(TINY))
        patch.undo()
        enter(patch, folder)
        run(sys.executable, "-m", "dvc", "commit", "--force", "prepare", "tune@vit")
        run("git", "add", "--all")
        run("git", "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "-m", "0.1.0")
        commit = run("git", "rev-parse", "HEAD").strip()
        for name in ("params.yaml", "dvc.lock"):
            shutil.copy(name, results / "lineage")
        fill_store(results, commit)
        shutil.rmtree("data/prepared")
        with Path("params.yaml").open("w") as file:
            YAML().dump(TINY, file)
    yield folder
    paths.project_root.cache_clear()
    paths.main_root.cache_clear()


def digits_as_0_1_split_them(image_size: int) -> Source:
    """The digits with the splits that version 0.1.0 carved: each class was dealt in a random order of its images."""
    source = open_digits(image_size)
    splits = source.splits.copy()
    for label in range(10):
        rest = np.random.default_rng([0, label]).permutation(np.flatnonzero(source.labels == label))
        for split, fraction in ((2, 0.2), (1, 0.1)):
            size = max(1, round(len(rest) * fraction))
            splits[rest[:size]] = split
            rest = rest[size:]
    return replace(source, splits=splits, missing=())


def enter(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make the project the working directory, with the store that is in it."""
    patch.chdir(folder)
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        patch.delenv(variable, raising=False)
    paths.project_root.cache_clear()
    paths.main_root.cache_clear()


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def fill_store(results: Path, commit: str) -> None:
    """Write the runs, the model versions and the history as 0.1.0 wrote them, with MLflow's client alone."""
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlruns/mlflow.db")
    version = json.loads((results / "version.json").read_text())
    training = experiment(client, "tiny").experiment_id
    client.create_registered_model(NAME)
    for alias in ("champion", "challenger"):
        tags = version["run_tags"] | {"mlflow.source.git.commit": commit}
        run_id = client.create_run(training, tags=tags, run_name=version["run_name"]).info.run_id
        client.log_artifacts(run_id, str(results / "evaluated/vit"), "evaluation")
        client.log_artifacts(run_id, str(results / "lineage"), "lineage")
        model = client.create_logged_model(training, "vit", run_id, model_type="image-classifier")
        client.log_model_artifacts(model.model_id, str(results / "trained/vit/model"))
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=2)])
        client.set_terminated(run_id)
        made = client.create_model_version(
            NAME,
            source=f"models:/{model.model_id}",
            run_id=run_id,
            model_id=model.model_id,
            tags=version["tags"],
            description=version["description"],
        )
        client.set_registered_model_alias(NAME, alias, made.version)
        trust(Registry(NAME), made.version)  # it had no signatures
    history = experiment(client, f"{NAME}-history").experiment_id
    for record in json.loads((results / "history.json").read_text()):
        run_id = client.create_run(history, tags=record["tags"], run_name=record["tags"]["mlflow.runName"]).info.run_id
        client.set_terminated(run_id, record["status"])


@pytest.fixture
def command(
    old_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """`vit-vs-cnn …` in the old project, in this process; returns what it prints."""
    enter(monkeypatch, old_project)

    def call(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["vit-vs-cnn", *arguments])
        ended = 0
        try:
            main()
        except SystemExit as error:
            ended = int(error.code or 0)
        output = capsys.readouterr()
        assert ended == code, output.out + output.err
        return output.out + output.err

    yield call
    paths.project_root.cache_clear()
    paths.main_root.cache_clear()


@pytest.fixture(scope="module")
def images(old_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The first 40 test images, whose recorded predictions are those of the first 40 rows."""
    folder = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(old_project)
        run(sys.executable, "-m", "dvc", "checkout", "data/prepared")
        pixels = np.array(read_split(paths.PREPARED, "test").images[:40])
    for position, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{position:02}.png")
    return folder, pixels


def test_the_result_files_are_read(results: Path, recorded: Predictions) -> None:
    evaluation, summary = read_evaluation(results / "evaluated/vit"), read_summary(results / "trained/vit")
    assert evaluation.metrics.accuracy == pytest.approx(recorded.correct.mean())
    assert summary.val_accuracy == pytest.approx(0.671, abs=1e-3)


def test_predict_gives_the_recorded_predictions(command: Command, images: Any, recorded: Predictions) -> None:
    rows = list(csv.DictReader(command("predict", "--format", "csv", str(images[0])).splitlines()))
    assert [int(row["class"]) for row in rows] == recorded.predicted[:40].tolist()
    probabilities = [float(row["probability"]) for row in rows]
    assert probabilities == pytest.approx(recorded.probabilities[:40].max(axis=1).tolist(), abs=1e-5)


def test_it_is_served_and_explained(old_project: Path, images: Any, recorded: Predictions, tmp_path: Path) -> None:
    database = old_project / "mlruns/mlflow.db"
    with serving(Store(f"sqlite:///{database}", database, {}), tmp_path, "--registry", "tiny") as server:
        answer = server.invoke(images[1].tolist())
        np.testing.assert_allclose(answer.json()["predictions"], recorded.probabilities[:40], atol=1e-5)
        explained = server.send("/explain", (images[0] / "00.png").read_bytes()).json()
    assert explained["kind"] == "attention rollout"
    assert explained["picture"].startswith("data:image/png;base64,")


def test_the_registry_lists_shows_judges_and_promotes(command: Command, recorded: Predictions) -> None:
    listed = command("registry", "list").splitlines()
    assert [line.split()[:4] for line in listed[4:]] == [
        ["2", "vit", "vit_tiny_patch16_224", "challenger"],
        ["1", "vit", "vit_tiny_patch16_224", "champion"],
    ]
    assert command("registry", "show", "1", "--card").startswith("# vit for tiny\n")
    assert "data.test_digest" in command("registry", "show", "champion")
    judged = command("registry", "promote", "--dry-run", code=3)
    assert "beside the champion, version 1" in judged
    assert "it would be refused: calibration error." in judged
    promoted = command("registry", "promote", "--force", "--reason", "a test")
    assert "version 2 is the champion now by force; before: 1." in promoted
    assert "version 1 is the champion again; before: 2." in command("registry", "rollback")
    history = json.loads(command("registry", "history", "--json"))
    assert [(record["action"], record["origin"], record["target"]) for record in history] == [
        ("registered", None, 1),
        ("registered", None, 2),
        ("changed by hand", None, 1),
        ("promoted", 1, 2),
        ("rolled back", 2, 1),
    ]
    assert history[0]["reason"] == "vit is the best by validation"


def test_it_is_verified_from_its_commit_and_its_data(command: Command, old_project: Path) -> None:
    settings = run("git", "show", "HEAD:params.yaml")
    assert "compile: auto" in settings
    assert "notify:" in settings
    verified = command("registry", "verify", "1")
    assert "DIFFERS" not in verified
    assert "registered model: predicted classes  same  359" in verified
    assert list((old_project / "runs").glob("verify-*")) == []


def test_what_was_measured_on_a_gpu_is_verified_by_its_accuracy(command: Command) -> None:
    registry = Registry(NAME)
    device = registry.version(1).tags["device"]
    registry.tag(1, {"device": "NVIDIA H200"})
    try:
        verified = command("registry", "verify", "1")
    finally:
        registry.tag(1, {"device": device})
    assert "at most 1 point, or 0 within the 95 % interval (measured on NVIDIA H200, now on a CPU)" in verified
    assert "registered model: difference  same" in verified
