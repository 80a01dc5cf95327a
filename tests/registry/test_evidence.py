from pathlib import Path

import numpy as np
import pytest
import torch

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.data.dataset import DatasetInfo, Decoding, read_split
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.export import export_model
from vit_vs_cnn.models.trained import TrainedModel, preprocess_for
from vit_vs_cnn.registry.evidence import predict_test
from vit_vs_cnn.registry.loading import load_exported


def test_a_version_is_not_measured_on_images_that_were_decoded_in_another_way(
    settings: Settings, prepared: DatasetInfo, tmp_path: Path
) -> None:
    model, padded = settings.models["resnet"], prepared.model_copy(update={"decoding": Decoding(fit="pad")})
    trained = TrainedModel(create_model(model, 3, 16).eval(), preprocess_for(model, padded))
    export_model(trained, "resnet", model, padded, np.zeros((2, 16, 16, 3), np.uint8), tmp_path / "model")
    loaded = load_exported(tmp_path / "model", "pets-classifier", 3, torch.device("cpu"))
    with pytest.raises(UserError, match=r"version 3 takes images with fit pad, channels rgb; those of tiny have fit"):
        predict_test(loaded, prepared, read_split(PREPARED, "test"))
    assert len(predict_test(loaded, padded, read_split(PREPARED, "test")).labels) == 24
