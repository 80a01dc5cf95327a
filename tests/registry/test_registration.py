"""The register stage, on results that tests make."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from factories import contestant
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import TransientError, UserError
from vit_vs_cnn.core.paths import REGISTERED, trained
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.registry.versions import Registry
from vit_vs_cnn.stages.register import run
from vit_vs_cnn.tracking.run import read_ref, start_run


@pytest.fixture
def results(settings: Settings, prepared: DatasetInfo) -> None:
    """Two trained and evaluated contestants, of which the ResNet is better by validation."""
    for name, val_accuracy in (("vit", 0.7), ("resnet", 0.8)):
        contestant(settings, name, errors=20, val_accuracy=val_accuracy)
        (trained(name) / "model").mkdir()
        (trained(name) / "model" / "MLmodel").write_text("flavors: {}\n")
        with start_run(settings, "train", name) as training:
            training.log_model(trained(name) / "model", name, "image-classifier", {}, {}, step=1)
            training.write_ref(trained(name))


def test_contestants_become_versions_and_the_better_by_validation_the_challenger(
    results: None, settings: Settings, prepared: DatasetInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings)
    assert json.loads((REGISTERED / "versions.json").read_text()) == {
        "name": "tiny-classifier",
        "versions": {"vit": 1, "resnet": 2},
        "challenger": "resnet",
    }
    assert "challenger (best by validation) is resnet" in capsys.readouterr().out
    challenger = Registry("tiny-classifier").version("challenger")
    assert challenger.number == 2
    assert challenger.run_id == read_ref(trained("resnet")).run_id
    assert challenger.contestant == "resnet"
    assert challenger.metric("val_accuracy") == 0.8
    assert challenger.metric("size_mb") == pytest.approx(12e-6)
    assert challenger.tags["data.test_digest"] == prepared.splits["test"].digest
    assert challenger.tags["timm"] == "resnet10t"
    assert challenger.metric("macro_f1") == pytest.approx(14 / 15, abs=0.01)
    assert challenger.card.startswith("# resnet for tiny\n")
    assert "0 other versions were measured on them and 0 decisions of the gate looked at them" in challenger.card


def test_the_challenger_is_the_best_by_the_metric_that_models_are_chosen_by(
    results: None, make_settings: Callable[..., Settings]
) -> None:
    for contestant_name, loss in (("vit", 0.4), ("resnet", 0.6)):
        path = trained(contestant_name) / "training.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"val_loss": loss}))
    run(make_settings({"select_by": "nll"}))
    assert Registry("tiny-classifier").version("challenger").contestant == "vit"
    with pytest.raises(
        UserError, match="select_by: the training of vit did not record macro_f1 on val; train it again"
    ):
        run(make_settings({"select_by": "macro_f1"}))


def test_registering_the_same_models_again_makes_no_new_versions(results: None, settings: Settings) -> None:
    run(settings)
    run(settings)
    assert [version.number for version in Registry("tiny-classifier").versions()] == [2, 1]


def test_a_training_run_that_the_store_does_not_have_is_one_sentence(
    results: None, settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/other.db")
    with pytest.raises(
        UserError, match=r"the training run of vit is not in sqlite:.*/other\.db; run `vit-vs-cnn sync`"
    ):
        run(settings)


def test_an_unreachable_registry_is_retried_and_says_what_to_do(
    results: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(
        TransientError, match=r"cannot be used .* run `vit-vs-cnn sync` and then `dvc repro register`\."
    ):
        run(settings)
