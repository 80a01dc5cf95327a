"""What a model costs: exact counts, and measurements that are repeated as often as they should be."""

from itertools import count

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from vit_vs_cnn.evaluation import cost
from vit_vs_cnn.evaluation.cost import count_flops, measure_cost, peak_memory_mb
from vit_vs_cnn.models.preprocess import Preprocess
from vit_vs_cnn.models.trained import TrainedModel

CPU = torch.device("cpu")
IMAGES = np.zeros((3, 8, 8, 3), np.uint8)


class Recording(nn.Module):
    """Remembers the size of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 2)
        self.batches: list[int] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.batches.append(len(pixels))
        answer: Tensor = self.layer(pixels.flatten(1))
        return answer


def model(network: nn.Module) -> TrainedModel:
    return TrainedModel(network.eval(), Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 8))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock in which every call of the model takes `clock[0]` seconds."""
    seconds, ticks = [0.1], count()
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(ticks) * seconds[0])
    return seconds


def test_flops_count_a_multiplication_and_an_addition_as_two() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 8 * 8, 5))
    convolution, linear = 2 * (3 * 3 * 3) * 4 * 64, 2 * 256 * 5
    assert count_flops(model(network), IMAGES[:1], CPU) == convolution + linear


def test_flops_of_attention_are_counted() -> None:
    width, tokens = 24, 5
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=width, depth=1, num_heads=2, num_classes=3
    )
    patches = 2 * 4 * (4 * 4 * 3) * width
    projections = 2 * tokens * (3 + 1 + 4 + 4) * width**2
    attention = 2 * 2 * tokens**2 * width
    assert count_flops(model(vit), IMAGES[:1], CPU) == patches + projections + attention + 2 * width * 3


def test_cost_of_a_model(clock: list[float]) -> None:
    network = Recording()
    measured = measure_cost(model(network), IMAGES, 16, CPU, "a processor", 12.5)
    assert measured.parameters == 3 * 8 * 8 * 2 + 2
    assert measured.latency_p50_ms == pytest.approx(100)
    assert measured.latency_p95_ms == pytest.approx(100)
    assert measured.throughput_images_per_second == pytest.approx(160)
    assert (measured.seconds_per_epoch, measured.device, measured.input_size) == (12.5, "a processor", 8)
    assert network.batches.count(1) >= 20
    assert network.batches.count(16) >= 3


def test_a_call_that_takes_long_is_not_repeated(clock: list[float]) -> None:
    clock[0] = 30.0
    network = Recording()
    measured = measure_cost(model(network), IMAGES, 16, CPU, "a processor", 1.0)
    assert network.batches.count(16) == 1
    assert measured.throughput_images_per_second == pytest.approx(16 / 30)


def test_memory_is_that_of_this_process_in_megabytes() -> None:
    # A Python with PyTorch in it takes more than 100 MB, and no test machine gives it a terabyte.
    assert 100 < peak_memory_mb(CPU) < 1e6


def test_measuring_leaves_the_model_as_it_was(clock: list[float]) -> None:
    trained = model(nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten()))
    before = {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}
    measure_cost(trained, IMAGES, 4, CPU, "a processor", 1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.network.state_dict().items())
