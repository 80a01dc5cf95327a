import zipfile
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
import yaml

from vit_vs_cnn.config import Settings
from vit_vs_cnn.data.prepared import DatasetInfo
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.export import export_model
from vit_vs_cnn.models.trained import TrainedModel, preprocess_for

CLASSES = ("dark", "grey", "bright")


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_the_exported_model_answers_as_the_network_for_any_batch(
    settings: Settings, prepared: DatasetInfo, tmp_path: Path, name: str
) -> None:
    model = settings.models[name]
    network = create_model(model, 3, prepared.image_size).eval()
    trained = TrainedModel(network, preprocess_for(model, prepared))
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    export_model(trained, images[:2], tmp_path / "model", CLASSES, name, model.timm)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    for batch in (images, images[:1]):
        expected = trained.probabilities(torch.from_numpy(batch)).numpy()
        np.testing.assert_allclose(loaded.predict(batch), expected, atol=1e-6)
    assert loaded.metadata.metadata["classes"] == list(CLASSES)


def test_the_exported_model_holds_no_pickle_and_needs_only_torch_and_mlflow(
    settings: Settings, prepared: DatasetInfo, tmp_path: Path
) -> None:
    model = settings.models["resnet"]
    trained = TrainedModel(create_model(model, 3, 16).eval(), preprocess_for(model, prepared))
    export_model(trained, np.zeros((2, 16, 16, 3), np.uint8), tmp_path / "model", CLASSES, "resnet", model.timm)
    needed = (tmp_path / "model/requirements.txt").read_text().split()
    assert {line.split("==")[0] for line in needed} == {"torch", "mlflow", "numpy"}
    assert yaml.safe_load((tmp_path / "model/MLmodel").read_text())["flavors"]["pytorch"]["model_data"] == "data"
    with zipfile.ZipFile(tmp_path / "model/data/model.pt2") as archive:
        # A pickle stream starts with the protocol opcode; tensors and JSON do not.
        assert not [name for name in archive.namelist() if archive.read(name)[:2] in (b"\x80\x02", b"\x80\x04")]
