"""Predictions of a model, batch by batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.evaluation.predict import batch_predict
from vit_vs_cnn.models.preprocess import Preprocess
from vit_vs_cnn.models.trained import TrainedModel

CPU = torch.device("cpu")


class Failing(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, _: Tensor) -> Tensor:
        raise self.error


def model(network: nn.Module) -> TrainedModel:
    return TrainedModel(network.eval(), Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 8))


@pytest.fixture
def linear() -> TrainedModel:
    torch.manual_seed(0)
    return model(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5)))


@pytest.fixture
def images() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)


def test_probabilities_are_the_models_for_each_image_in_order(linear: TrainedModel, images: np.ndarray) -> None:
    answers = batch_predict(linear.probabilities, images, 4, CPU)
    logits = linear.network(linear.preprocess(torch.from_numpy(images)))
    np.testing.assert_allclose(answers, logits.softmax(dim=1).detach().numpy(), rtol=1e-5)
    assert answers.dtype == np.float32
    assert answers.shape == (11, 5)


@pytest.mark.parametrize("batch_size", [1, 3, 11, 256])
def test_the_batch_size_changes_nothing(linear: TrainedModel, images: np.ndarray, batch_size: int) -> None:
    np.testing.assert_allclose(
        batch_predict(linear.probabilities, images, batch_size, CPU),
        batch_predict(linear.probabilities, images, 5, CPU),
        rtol=1e-5,
    )


def test_images_may_be_mapped_from_a_file(linear: TrainedModel, images: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        batch_predict(linear.probabilities, mapped, 4, CPU), batch_predict(linear.probabilities, images, 4, CPU)
    )


def test_the_softmax_is_taken_in_float32() -> None:
    class HalfPrecision(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return torch.tensor([[8.0, 0.0]], dtype=torch.bfloat16).expand(len(pixels), 2)

    answers = batch_predict(model(HalfPrecision()).probabilities, np.zeros((2, 8, 8, 3), np.uint8), 2, CPU)
    assert answers[0, 1] == pytest.approx(1 / (1 + np.exp(8)), rel=1e-5)


def test_too_large_a_batch_is_said_with_the_setting_to_lower(images: np.ndarray) -> None:
    with pytest.raises(
        UserError, match=r"cpu: memory does not suffice for a batch of 4 images.*lower evaluate\.batch_size"
    ):
        batch_predict(model(Failing(torch.OutOfMemoryError("CUDA out of memory"))).probabilities, images, 4, CPU)


def test_another_error_is_not_hidden(images: np.ndarray) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        batch_predict(model(Failing(RuntimeError("shapes do not fit"))).probabilities, images, 4, CPU)
