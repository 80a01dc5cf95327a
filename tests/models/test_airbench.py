import numpy as np
import pytest
import timm
import torch
from torch import nn

from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.models.airbench import WhitenedPatches, fit_whitening
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.preprocess import Preprocess


def test_airbench94_has_as_many_parameters_as_the_paper_says() -> None:
    network = create_model(ModelSettings(timm="airbench94"), 10, 32)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(1.97, abs=0.005)


def test_a_residual_group_adds_its_first_activation_to_its_last_convolution() -> None:
    group = create_model(ModelSettings(timm="airbench96", args={"widths": [24, 8, 8]}), 10, 32).groups[0].eval()  # type: ignore[union-attr,index]
    torch.nn.init.zeros_(group.conv3.weight)
    maps = torch.rand(2, 24, 6, 6)
    expected = group.activation(group.activation(group.norm1(group.pool(maps))))
    torch.testing.assert_close(group(maps), expected)


def test_the_first_channels_begin_as_copies_of_what_comes_in() -> None:
    network = create_model(ModelSettings(timm="airbench94"), 10, 32)
    maps = torch.rand(2, 24, 7, 7)
    torch.testing.assert_close(network.groups[0].conv1(maps)[:, :24], maps)  # type: ignore[union-attr,index]


def test_they_follow_timm_s_conventions() -> None:
    network = timm.create_model("airbench94", num_classes=5, widths=(8, 8, 16)).eval()
    pixels = torch.rand(2, 3, 40, 40)
    maps = network.forward_features(pixels)
    assert maps.shape == (2, 16, 4, 4)
    assert network.forward_head(maps, pre_logits=True).shape == (2, network.num_features)
    torch.testing.assert_close(network.forward_head(maps), network(pixels))
    network.reset_classifier(3)
    assert network(pixels).shape == (2, 3)
    assert network.get_classifier() is network.head


def blurred_noise(images: int) -> np.ndarray:
    """Images whose neighbouring pixels and channels go together, as those of photographs do."""
    noise = np.random.default_rng(0).normal(size=(images, 18, 18, 3))
    blurred = noise[:, :-2] + noise[:, 1:-1] + noise[:, 2:]
    blurred = blurred[:, :, :-2] + blurred[:, :, 1:-1] + blurred[:, :, 2:] + blurred[:, :16, :16, :1]
    return np.clip(128 + 20 * blurred, 0, 255).astype(np.uint8)


def test_the_outputs_of_a_fitted_layer_are_uncorrelated_and_of_unit_variance() -> None:
    images, layer = blurred_noise(300), WhitenedPatches(3, side=2)
    preprocess = Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 16)
    fit_whitening(nn.Sequential(nn.Identity(), layer), images, preprocess)
    maps = layer(preprocess(torch.from_numpy(images))).movedim(1, -1).reshape(-1, 24)
    half = maps[:, :12]
    torch.testing.assert_close(half.T @ half / len(half), torch.eye(12), atol=0.05, rtol=0.0)
    torch.testing.assert_close(maps[:, 12:], -half)


def test_the_axes_stay_as_they_were_fitted_and_only_the_bias_learns() -> None:
    layer = WhitenedPatches(3, side=2)
    assert [name for name, parameter in layer.named_parameters() if parameter.requires_grad] == ["bias"]


@pytest.mark.parametrize(
    ("images", "side", "looked_at"), [(3, 8, 3), (5_000, 8, 5_000), (12_345, 8, 4_115), (60, 320, 30), (3, 2_400, 1)]
)
def test_only_a_part_of_many_or_large_images_is_looked_at(images: int, side: int, looked_at: int) -> None:
    seen: list[int] = []

    class Counting(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            seen.append(len(pixels))
            return torch.zeros(len(pixels), 1, side, side)  # resized to what the network sees

    fit_whitening(WhitenedPatches(1, side=2), np.zeros((images, 8, 8, 3), np.uint8), Counting())
    assert seen == [1, looked_at]


def test_a_network_without_such_a_layer_stays_as_it_is() -> None:
    network = nn.Conv2d(3, 4, 2)
    before = network.weight.clone()
    fit_whitening(network, blurred_noise(3), nn.Identity())
    assert torch.equal(before, network.weight)
