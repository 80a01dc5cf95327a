from pathlib import Path

import pytest
from mlflow import MlflowClient

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import trained
from vit_vs_cnn.registry.registration import register
from vit_vs_cnn.registry.versions import Candidate, resolve_model_name
from vit_vs_cnn.tracking.run import read_ref, start_run
from vit_vs_cnn.tracking.store import tracking_uri


def candidate(settings: Settings, name: str, val_accuracy: float) -> Candidate:
    folder = trained(name)
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    with start_run(settings, "train", name) as run:
        run.log_model(folder, name, "image-classifier", {}, {}, step=1)
        run.write_ref(folder)
    return Candidate(name, read_ref(folder), val_accuracy, {"accuracy": 0.5}, {"timm": "some_model"})


def test_contestants_become_versions_and_the_better_by_validation_the_challenger(
    settings: Settings, project: Path
) -> None:
    candidates = [candidate(settings, "a", 0.7), candidate(settings, "b", 0.8)]
    versions = register("tiny-classifier", candidates)
    client = MlflowClient(tracking_uri())
    challenger = client.get_model_version_by_alias("tiny-classifier", "challenger")
    assert int(challenger.version) == versions["b"]
    assert challenger.run_id == candidates[1].ref.run_id
    assert challenger.tags["contestant"] == "b"


def test_registering_the_same_models_again_makes_no_new_versions(settings: Settings, project: Path) -> None:
    candidates = [candidate(settings, "a", 0.7)]
    assert register("tiny-classifier", candidates) == register("tiny-classifier", candidates) == {"a": 1}


def test_a_run_that_the_store_does_not_have_is_one_sentence(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = candidate(settings, "a", 0.7)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/other.db")
    with pytest.raises(UserError, match=r"cannot be used .* run `vit-vs-cnn sync` and then"):
        register("tiny-classifier", [known])


def test_a_registry_that_is_away_says_what_to_do_when_it_is_back(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = candidate(settings, "a", 0.7)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="run `vit-vs-cnn sync` and then `dvc repro register`"):
        register("tiny-classifier", [known])


def test_the_registered_model_that_is_meant(project: Path) -> None:
    with pytest.raises(UserError, match="holds no registered model"):
        resolve_model_name(None, "pets")
    client = MlflowClient(tracking_uri())
    client.create_registered_model("pets-classifier")
    assert resolve_model_name(None, "digits") == "pets-classifier"
    client.create_registered_model("digits-classifier")
    assert resolve_model_name(None, "digits") == "digits-classifier"
    assert resolve_model_name("pets", "digits") == resolve_model_name("pets-classifier", None) == "pets-classifier"
    with pytest.raises(UserError, match="name one of digits-classifier, pets-classifier"):
        resolve_model_name(None, "cars")
    with pytest.raises(UserError, match="no registered model 'cars'; it has digits-classifier, pets-classifier"):
        resolve_model_name("cars", "digits")
