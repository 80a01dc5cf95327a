"""What a model costs: exact counts, and measurements in turns that are repeated as often as they should be."""

from itertools import count

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.data.dataset import DatasetInfo, read_split
from vit_vs_cnn.evaluation import cost
from vit_vs_cnn.evaluation.cost import count_flops, measure_speed, peak_memory_mb
from vit_vs_cnn.evaluation.results import read_cost
from vit_vs_cnn.models.preprocess import Preprocess
from vit_vs_cnn.models.trained import TrainedModel, load_trained
from vit_vs_cnn.stages import cost as cost_stage
from vit_vs_cnn.stages import train

CPU = torch.device("cpu")
IMAGES = np.zeros((3, 8, 8, 3), np.uint8)


class Clock:
    """A clock that advances only while a model computes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, int]] = []

    def perf_counter(self) -> float:
        return self.now


class Slow(nn.Module):
    """A model that takes `seconds[i]` for its i-th call and all following ones, by the clock."""

    def __init__(self, name: str, clock: Clock, *seconds: float) -> None:
        super().__init__()
        self.name, self.clock, self.seconds, self.position = name, clock, seconds, count()

    def forward(self, images: Tensor) -> Tensor:
        self.clock.calls.append((self.name, len(images)))
        self.clock.now += self.seconds[min(next(self.position), len(self.seconds) - 1)]
        return torch.zeros(len(images), 2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cost, "time", clock)
    return clock


def model(network: nn.Module) -> TrainedModel:
    return TrainedModel(network.eval(), Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 8))


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


def test_speed_of_models_that_always_take_as_long(clock: Clock) -> None:
    speeds = measure_speed({"a": Slow("a", clock, 0.1), "b": Slow("b", clock, 0.05)}, IMAGES, 16, CPU)
    for name, seconds in (("a", 0.1), ("b", 0.05)):
        speed = speeds[name]
        milliseconds = [speed.latency_p50_ms_low, speed.latency_p50_ms, speed.latency_p50_ms_high, speed.latency_p95_ms]
        assert milliseconds == pytest.approx([1e3 * seconds] * 4)
        throughput = speed.throughput_images_per_second
        assert throughput == pytest.approx(16 / seconds)
        assert throughput == pytest.approx(speed.throughput_images_per_second_low)


def test_the_models_take_turns_in_five_rounds(clock: Clock) -> None:
    measure_speed({name: Slow(name, clock, 0.1) for name in "abc"}, IMAGES, 16, CPU)
    order = [name for position, (name, _) in enumerate(clock.calls) if clock.calls[position - 1][0] != name]
    # Two warm-ups, of single images and of batches, and five rounds.
    assert "".join(order) == "abc" * 7
    assert clock.calls.count(("a", 1)) == 3 + 5 * 10


def test_the_spread_is_over_rounds_and_the_95th_percentile_over_all_calls(clock: Clock) -> None:
    # Slower from the third of five rounds on: each has ten single images and two batches.
    calls = [0.1] * (3 + 1 + 2 * 12) + [0.3]
    speed = measure_speed({"a": Slow("a", clock, *calls)}, IMAGES, 16, CPU)["a"]
    assert speed.latency_p50_ms_low == pytest.approx(100)
    assert speed.latency_p50_ms == pytest.approx(speed.latency_p50_ms_high) == pytest.approx(300)
    assert speed.throughput_images_per_second_high == pytest.approx(160)
    assert speed.throughput_images_per_second == pytest.approx(16 / 0.3)
    calls = [0.1] * (3 + 1 + 4 * 12) + [0.3]
    speed = measure_speed({"a": Slow("a", clock, *calls)}, IMAGES, 16, CPU)["a"]
    assert (speed.latency_p50_ms, speed.latency_p95_ms) == pytest.approx((100, 300))


def test_calls_that_take_long_are_not_repeated(clock: Clock) -> None:
    speed = measure_speed({"a": Slow("a", clock, 130.0)}, IMAGES, 16, CPU)["a"]
    assert clock.calls == [("a", 1)] * 3 + [("a", 16)] + [("a", 1)] + [("a", 16)]
    assert speed.throughput_images_per_second == pytest.approx(16 / 130)


def test_memory_is_that_of_this_process_in_megabytes() -> None:
    # A Python with PyTorch in it takes more than 100 MB, and no test machine gives it a terabyte.
    assert 100 < peak_memory_mb(CPU) < 1e6


def test_measuring_leaves_the_model_as_it_was(clock: Clock) -> None:
    trained = model(nn.Sequential(Slow("a", clock, 0.1), nn.Linear(2, 2), nn.BatchNorm1d(2)))
    before = {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}
    measure_speed({"a": trained}, IMAGES, 4, CPU)
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.network.state_dict().items())


def test_the_stage_measures_the_exported_programs_of_all_contestants(
    settings: Settings, prepared: DatasetInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    for contestant in settings.models:
        train.run(settings, contestant, 0)
    cost_stage.run(settings)
    said, val = capsys.readouterr().out, read_split(PREPARED, "val")
    for contestant in settings.models:
        measured, network = read_cost(contestant), load_trained(settings, contestant, 0, prepared)
        assert measured.parameters == sum(weights.numel() for weights in network.network.parameters())
        assert measured.flops == count_flops(network, val.images[:1], CPU)
        assert 0 < measured.latency_p50_ms_low <= measured.latency_p50_ms <= measured.latency_p50_ms_high
        assert measured.latency_p50_ms <= measured.latency_p95_ms
        assert measured.input_size == prepared.image_size
        assert f"{contestant} {measured.latency_p50_ms:.1f} ms for one image" in said
