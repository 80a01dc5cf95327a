"""The network that explains a served model is the one that was exported."""

from pathlib import Path

import numpy as np
import torch

from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.export import export_model
from vit_vs_cnn.models.trained import TrainedModel, preprocess_for
from vit_vs_cnn.registry.loading import load_exported


def test_the_rebuilt_network_sees_what_the_exported_program_sees(prepared: DatasetInfo, tmp_path: Path) -> None:
    info = prepared.model_copy(update={"image_size": 40})
    args = {"channels": [8, 8, 16, 16], "stem_width": 8}
    # Large enough images that this checkpoint's crop applies.
    model = ModelSettings(timm="resnet10t", pretrained=True, input_size=32, args=args)
    trained = TrainedModel(create_model(model, 3, 40).eval(), preprocess_for(model, info))
    assert trained.preprocess.crop < 1.0
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    export_model(trained, "resnet", model, info, images, tmp_path / "model")
    registered = load_exported(tmp_path / "model", "tiny-classifier", 1, torch.device("cpu"))
    expected = trained.probabilities(torch.from_numpy(images))
    rebuilt = registered.rebuilt
    torch.testing.assert_close(torch.from_numpy(registered.probabilities(images)), expected, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(rebuilt.probabilities(torch.from_numpy(images)), expected, atol=1e-5, rtol=0.0)
    assert rebuilt.preprocess.visible(images).shape == (3, 36, 36, 3)
