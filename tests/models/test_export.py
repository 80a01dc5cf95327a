import json
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
import yaml

from vit_vs_cnn.config.schema import ModelSettings, Settings
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.export import export_model
from vit_vs_cnn.models.trained import TrainedModel, preprocess_for


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_the_exported_model_answers_as_the_network_for_any_batch(
    settings: Settings, prepared: DatasetInfo, tmp_path: Path, name: str
) -> None:
    model = settings.models[name]
    network = create_model(model, 3, prepared.image_size).eval()
    trained = TrainedModel(network, preprocess_for(model, prepared))
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    export_model(trained, name, model, prepared, images[:2], tmp_path / "model")
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    for batch in (images, images[:1]):
        expected = trained.probabilities(torch.from_numpy(batch)).numpy()
        np.testing.assert_allclose(loaded.predict(batch), expected, atol=1e-6)
    metadata = loaded.metadata.metadata
    assert metadata["classes"] == list(prepared.classes)
    assert metadata["image_size"] == prepared.image_size
    assert ModelSettings.model_validate_json(json.dumps(metadata["settings"])) == model


def test_the_exported_model_holds_no_pickle_and_needs_only_torch_and_mlflow(
    settings: Settings, prepared: DatasetInfo, tmp_path: Path
) -> None:
    model = settings.models["resnet"]
    trained = TrainedModel(create_model(model, 3, 16).eval(), preprocess_for(model, prepared))
    export_model(trained, "resnet", model, prepared, np.zeros((2, 16, 16, 3), np.uint8), tmp_path / "model")
    needed = (tmp_path / "model/requirements.txt").read_text().split()
    assert {line.split("==")[0] for line in needed} == {"torch", "mlflow", "numpy"}
    assert yaml.safe_load((tmp_path / "model/MLmodel").read_text())["flavors"]["pytorch"]["model_data"] == "data"
    with zipfile.ZipFile(tmp_path / "model/data/model.pt2") as archive:
        # A pickle stream starts with the protocol opcode; tensors and JSON do not.
        assert not [name for name in archive.namelist() if archive.read(name)[:2] in (b"\x80\x02", b"\x80\x04")]


def without_the_project(code: str, folder: Path) -> dict[str, str]:
    """What `code` prints as JSON in a process where only mlflow and torch can be imported, and MLflow sees a GPU."""
    prelude = """
    import importlib.abc, json, sys, warnings
    warnings.simplefilter("ignore")

    class Blocker(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {"vit_vs_cnn", "timm", "torchvision", "safetensors", "cv2"}:
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Blocker())
    import mlflow, numpy as np, torch
    torch.cuda.is_available = lambda: True
    """
    program = textwrap.dedent(prelude) + textwrap.dedent(code)
    answer = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-2000:]
    printed: dict[str, str] = json.loads(answer.stdout.splitlines()[-1])
    return printed


def test_without_this_project_wrong_images_are_refused_and_right_ones_answered(
    settings: Settings, prepared: DatasetInfo, tmp_path: Path
) -> None:
    model = settings.models["vit"]
    trained = TrainedModel(create_model(model, 3, 16).eval(), preprocess_for(model, prepared))
    export_model(trained, "vit", model, prepared, np.zeros((2, 16, 16, 3), np.uint8), tmp_path / "model")
    code = """
    right = np.zeros((3, 16, 16, 3), np.uint8)
    wrong = {
        "float": right.astype(np.float32), "int64": right.astype(np.int64), "one image": right[0],
        "channels first": right.transpose(0, 3, 1, 2), "size": np.zeros((3, 20, 20, 3), np.uint8),
        "grey": right[..., :1], "flat": right.reshape(3, -1),
    }
    raw, pyfunc = mlflow.pytorch.load_model(sys.argv[1]), mlflow.pyfunc.load_model(sys.argv[1])
    doors = {"pytorch": lambda images: raw(torch.from_numpy(images)), "pyfunc": pyfunc.predict}
    said = {}
    for name, images in wrong.items():
        for door, call in doors.items():
            try:
                call(images)
            except Exception as error:
                said[f"{door} {name}"] = str(error)
            else:
                said[f"{door} {name}"] = "answered"
    assert raw(torch.from_numpy(right)).shape == pyfunc.predict(right).shape == (3, 3)
    print(json.dumps(said))
    """
    said = without_the_project(code, tmp_path / "model")
    assert len(said) == 14
    assert "answered" not in said.values()
    assert "dtype mismatch" in said["pytorch float"]
    assert "does not match expected shape (-1, 16, 16, 3)" in said["pyfunc channels first"]


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_the_program_is_bound_to_no_device(
    settings: Settings, prepared: DatasetInfo, tmp_path: Path, name: str
) -> None:
    model = settings.models[name]
    trained = TrainedModel(create_model(model, 3, 16).eval(), preprocess_for(model, prepared))
    export_model(trained, name, model, prepared, np.zeros((2, 16, 16, 3), np.uint8), tmp_path / "model")
    program = torch.export.load(tmp_path / "model/data/model.pt2")
    assert not [node for node in program.graph.nodes if "device" in node.kwargs]
