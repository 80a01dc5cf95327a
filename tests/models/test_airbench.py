import pytest
import timm
import torch

from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.models.build import create_model


def test_airbench94_has_as_many_parameters_as_the_paper_says() -> None:
    network = create_model(ModelSettings(timm="airbench94"), 10, 32)
    assert sum(each.numel() for each in network.parameters()) / 1e6 == pytest.approx(1.97, abs=0.005)


def test_a_residual_group_passes_on_what_its_last_convolutions_leave_out() -> None:
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
