"""Which registered model and which version a command means."""

import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

from factories import add_version, new_registry
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.registry.versions import resolve_model_name
from vit_vs_cnn.tracking.store import tracking_uri


def test_the_registered_model_that_is_meant(project: Path) -> None:
    with pytest.raises(UserError, match="has no registered model: run"):
        resolve_model_name(None, "pets")
    client = MlflowClient(tracking_uri())
    client.create_registered_model("pets-classifier")
    assert resolve_model_name(None, "digits") == "pets-classifier"
    client.create_registered_model("digits-classifier")
    assert resolve_model_name(None, "digits") == "digits-classifier"
    assert resolve_model_name("pets", "digits") == resolve_model_name("pets-classifier", None) == "pets-classifier"
    for given, data_name in ((None, "cars"), ("cars", "digits")):
        with pytest.raises(
            UserError, match="no registered model 'cars': name one of digits-classifier, pets-classifier"
        ):
            resolve_model_name(given, data_name)
    with pytest.raises(
        UserError, match="has several registered models: name one of digits-classifier, pets-classifier"
    ):
        resolve_model_name(None, None)


@pytest.mark.parametrize("given", ["9", "best", "0", "-1"])
def test_a_version_that_is_not_there_names_those_that_are(settings: Settings, project: Path, given: str) -> None:
    registry = new_registry()
    add_version(settings, registry, [])
    registry.move("champion", 1)
    with pytest.raises(UserError, match=re.escape(f"no version or alias {given!r}; there are: 1, champion.")):
        registry.version(given)
