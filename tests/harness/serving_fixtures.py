"""The fixtures of the tests of serving, as a plugin that they name."""

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from factories import TINY
from harness.model_server import CLASSES, INFO, NAME, SIZE, Server, Store, serving
from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.export import export_model
from vit_vs_cnn.models.trained import TrainedModel, preprocess_for
from vit_vs_cnn.registry.signing import signature_tags


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, TrainedModel]]:
    folder, settings, networks = tmp_path_factory.mktemp("exported"), parse_settings(TINY), {}
    for version, (name, model) in enumerate(settings.models.items(), start=1):
        torch.manual_seed(version)
        network = create_model(model, len(CLASSES), SIZE).eval()
        trained = TrainedModel(network, preprocess_for(model, INFO), temperature=0.5 + 0.3 * version)
        # Random weights say the same of every image; these do not.
        for weights in trained.network.get_classifier().parameters():  # type: ignore[operator]
            torch.nn.init.normal_(weights, std=2.0)
        export_model(trained, name, model, INFO, np.zeros((2, SIZE, SIZE, 3), np.uint8), folder / str(version))
        networks[version] = trained
    return folder, networks


@pytest.fixture(scope="session")
def store(
    exported: tuple[Path, dict[int, TrainedModel]], empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Store:
    models, networks = exported
    database = Path(shutil.copy(empty_store, tmp_path_factory.mktemp("registry")))
    made = Store(f"sqlite:///{database}", database, networks)
    made.client.create_registered_model(NAME)
    for version in networks:
        model = models / str(version)
        made.client.create_model_version(NAME, source=str(model), tags=signature_tags(model))
    made.promote(1)
    return made


@pytest.fixture(scope="session")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(store, tmp_path_factory.mktemp("server"), "--max-seconds", "300") as running:
        yield running


@pytest.fixture
def picture() -> Callable[..., bytes]:
    def make(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """Six images that the tiny networks distinguish."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 50, (6, SIZE, SIZE, 3))
    return (noise + np.arange(6)[:, None, None, None] * 40).astype(np.uint8)
