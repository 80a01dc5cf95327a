import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from harness.model_server import NAME, Store
from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.registry.loading import load_registered
from vit_vs_cnn.registry.signing import signature_tags
from vit_vs_cnn.serving.saliency import render_saliency

pytest_plugins = ["harness.serving_fixtures"]


@pytest.fixture(autouse=True)
def _in_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)


@pytest.mark.parametrize("version", [1, 2])
def test_a_version_answers_as_the_network_and_so_does_the_network_built_from_it(
    store: Store, images: NDArray[np.uint8], version: int
) -> None:
    model = load_registered(NAME, version)
    np.testing.assert_allclose(model.probabilities(images), store.expected(version, images), atol=1e-5)
    again = model.rebuilt.probabilities(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(again, store.expected(version, images), atol=1e-5)


def test_a_version_without_settings_predicts_and_skips_the_saliency_map(
    store: Store, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(store.client.get_model_version(NAME, "1").source, older)
    described = yaml.safe_load((older / "MLmodel").read_text())
    del described["metadata"]["settings"], described["metadata"]["image_size"]
    (older / "MLmodel").write_text(yaml.safe_dump(described))
    version = int(store.client.create_model_version(NAME, source=str(older), tags=signature_tags(older)).version)
    model = load_registered(NAME, version)
    np.testing.assert_allclose(model.probabilities(images), store.expected(1, images), atol=1e-5)
    with pytest.raises(NotApplicableError, match=r"The saliency map is skipped.*Predictions work"):
        render_saliency(model, 0, images[:1])


def test_a_version_whose_recipe_has_settings_of_another_release_is_still_rebuilt(
    store: Store, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(store.client.get_model_version(NAME, "1").source, older)
    described = yaml.safe_load((older / "MLmodel").read_text())
    described["metadata"]["settings"]["recipe"]["augment"]["a_setting_that_is_gone"] = False
    (older / "MLmodel").write_text(yaml.safe_dump(described))
    made = store.client.create_model_version(NAME, source=str(older), tags=signature_tags(older))
    model = load_registered(NAME, int(made.version))
    again = model.rebuilt.probabilities(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(again, store.expected(1, images), atol=1e-5)
