"""What a training runs on, and how a network is run there."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from vit_vs_cnn.config.schema import ModelSettings, TrainSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.training.setup import Plan, Precision, fastest_attention, make_plan, use_deterministic_algorithms

SMALL = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize(("has_bf16", "precision"), [(False, "32-true"), (True, "bf16-mixed")])
def test_precision_auto_is_bf16_where_a_cpu_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, precision: str
) -> None:
    monkeypatch.setattr("vit_vs_cnn.training.setup.cpu_has_bf16", lambda: has_bf16)
    assert make_plan(TrainSettings(epochs=1, device="cpu")).precision == precision


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "32-true"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")]
)
def test_precision_auto_is_bf16_on_gpus_from_compute_capability_8_0(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert make_plan(TrainSettings(epochs=1)).precision == precision


def test_what_the_settings_say_is_what_is_planned() -> None:
    plan = make_plan(TrainSettings(epochs=1, device="cpu", precision="bf16-mixed", compile=True, devices=2))
    assert (plan.device.type, plan.precision, plan.compiled, plan.devices) == ("cpu", "bf16-mixed", True, 2)


def test_more_gpus_than_there_are_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"train\.devices: 4 GPUs are to share each batch, and PyTorch sees 1\."):
        make_plan(TrainSettings(epochs=1, devices=4))


def plan(device: str, precision: Precision) -> Plan:
    return Plan(torch.device(device), device, 1, precision, compiled=False)


def fused_layers(network: nn.Module) -> int:
    return sum(getattr(module, "fused_attn", False) is True for module in network.modules())


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
def test_attention_without_the_fused_kernel_gives_the_same_results_and_is_fused_again_afterwards(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(ModelSettings(timm=name, args=SMALL), 10, 32).eval()
    pixels, layers = torch.rand(2, 3, 32, 32), fused_layers(network)
    fused = network(pixels)
    with fastest_attention(network, plan("cpu", "bf16-mixed")):
        assert fused_layers(network) == 0
        torch.testing.assert_close(network(pixels), fused)
    assert fused_layers(network) == layers == 2


def test_attention_is_fused_again_after_an_error() -> None:
    network = create_model(ModelSettings(timm="vit_tiny_patch16_224"), 10, 32)
    with pytest.raises(KeyError), fastest_attention(network, plan("cpu", "bf16-mixed")):
        raise KeyError
    assert fused_layers(network) == 12


@pytest.mark.parametrize(
    ("device", "precision", "fused"), [("cpu", "bf16-mixed", 0), ("cpu", "32-true", 12), ("cuda", "bf16-mixed", 12)]
)
def test_the_fused_kernel_is_replaced_only_where_it_is_slow(device: str, precision: Precision, fused: int) -> None:
    network = create_model(ModelSettings(timm="vit_tiny_patch16_224"), 10, 32)
    with fastest_attention(network, plan(device, precision)):
        assert fused_layers(network) == fused


# Prints how many pages the kernel hands out for a tensor of 64 MB that is made and freed again and again, in the end.
PAGES_OF_A_TENSOR = """
import ctypes, resource, torch
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # pages of the usual size, also where the kernel takes large ones
from vit_vs_cnn.config.schema import TrainSettings
from vit_vs_cnn.training.setup import make_fabric, make_plan
if {kept}:
    make_fabric(make_plan(TrainSettings(epochs=1, device="cpu")))
for _ in range(50):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(*, kept: bool) -> int:
    code = PAGES_OF_A_TENSOR.format(kept=kept)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(answer.stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc returns memory so eagerly"
)
def test_on_a_cpu_the_memory_of_freed_tensors_is_there_for_the_next_step() -> None:
    assert pages(kept=True) < 100
    assert pages(kept=False) > 10_000


@pytest.mark.parametrize(
    ("device", "wanted", "used"), [("cpu", False, True), ("cuda", False, False), ("cuda", True, True)]
)
def test_algorithms_are_deterministic_on_a_cpu_and_where_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch, device: str, wanted: bool, used: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = torch.are_deterministic_algorithms_enabled()
    try:
        use_deterministic_algorithms(make_plan(TrainSettings(epochs=1, deterministic=wanted)))
        assert torch.are_deterministic_algorithms_enabled() is used
        assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if used else None)
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)
