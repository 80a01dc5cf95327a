import pytest
import torch

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import trained
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.trained import load_trained, save_weights


def test_saved_weights_come_back(settings: Settings, prepared: DatasetInfo) -> None:
    network = create_model(settings.models["vit"], 3, 16)
    trained("vit").mkdir(parents=True)
    save_weights(network, trained("vit") / "weights.safetensors")
    loaded = load_trained(settings, "vit", prepared).network
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


def test_weights_of_another_configuration_are_refused(settings: Settings, prepared: DatasetInfo) -> None:
    trained("vit").mkdir(parents=True)
    save_weights(create_model(settings.models["resnet"], 3, 16), trained("vit") / "weights.safetensors")
    with pytest.raises(UserError, match=r"not of models\.vit as params\.yaml has it"):
        load_trained(settings, "vit", prepared)


def test_missing_weights_name_the_stage_that_makes_them(settings: Settings, prepared: DatasetInfo) -> None:
    with pytest.raises(UserError, match=r"run `dvc repro train@vit` first"):
        load_trained(settings, "vit", prepared)
