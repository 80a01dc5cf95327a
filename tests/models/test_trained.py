import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_model

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import trained
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.preprocess import Preprocess
from vit_vs_cnn.models.temperature import HIGHEST, LOWEST, softmax
from vit_vs_cnn.models.trained import TrainedModel, load_trained, save_weights


def model(network: torch.nn.Module, temperature: float = 1.0) -> TrainedModel:
    return TrainedModel(network, Preprocess((0.5,) * 3, (0.25,) * 3, 16), temperature)


class Logits(torch.nn.Module):
    """A network that answers with these logits, whatever the image."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.answers = torch.tensor(logits)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.answers


@given(
    st.lists(st.lists(st.integers(-4000, 4000), min_size=4, max_size=4), min_size=1, max_size=8),
    st.floats(LOWEST, HIGHEST),
)
def test_a_temperature_changes_no_prediction(steps: list[list[int]], temperature: float) -> None:
    # Steps of 1/128, which a network in bf16 can distinguish; equal ones stay equal.
    network = Logits([[step / 128 for step in row] for row in steps])
    images = torch.zeros(len(steps), 16, 16, 3, dtype=torch.uint8)
    plain = model(network).probabilities(images)
    scaled = model(network, temperature).probabilities(images)
    assert torch.equal(scaled.argmax(dim=1), plain.argmax(dim=1))
    assert torch.equal(scaled.argmax(dim=1), network.answers.argmax(dim=1))
    torch.testing.assert_close(scaled.sum(dim=1), torch.ones(len(steps)))
    np.testing.assert_allclose(softmax(network.answers.numpy(), temperature), scaled.numpy(), rtol=1e-6)


def test_the_temperature_is_stored_with_the_weights(settings: Settings, prepared: DatasetInfo) -> None:
    trained("vit", 0).mkdir(parents=True)
    path = trained("vit", 0) / "weights.safetensors"
    network = create_model(settings.models["vit"], 3, 16)
    save_weights(model(network, 0.62), path)
    assert load_trained(settings, "vit", 0, prepared).temperature.item() == pytest.approx(0.62)
    # As release 0.1 wrote them.
    save_model(network, str(path))
    assert load_trained(settings, "vit", 0, prepared).temperature.item() == 1.0


def test_saved_weights_come_back(settings: Settings, prepared: DatasetInfo) -> None:
    network = create_model(settings.models["vit"], 3, 16)
    trained("vit", 0).mkdir(parents=True)
    save_weights(model(network), trained("vit", 0) / "weights.safetensors")
    loaded = load_trained(settings, "vit", 0, prepared).network
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


def test_weights_of_another_configuration_are_refused(settings: Settings, prepared: DatasetInfo) -> None:
    trained("vit", 0).mkdir(parents=True)
    save_weights(model(create_model(settings.models["resnet"], 3, 16)), trained("vit", 0) / "weights.safetensors")
    with pytest.raises(UserError, match=r"not of models\.vit as params\.yaml has it"):
        load_trained(settings, "vit", 0, prepared)


def test_missing_weights_name_the_stage_that_makes_them(settings: Settings, prepared: DatasetInfo) -> None:
    with pytest.raises(UserError, match=r"run `dvc repro train@vit-0` first"):
        load_trained(settings, "vit", 0, prepared)
