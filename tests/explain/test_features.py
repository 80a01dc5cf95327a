import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.explain.features import feature_maps, first_filters, position_similarity

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
PIXELS = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_filters_are_the_weights_as_colours_with_grey_for_zero() -> None:
    network = timm.create_model("resnet18")
    with torch.no_grad():
        network.conv1.weight.zero_()
        network.conv1.weight[3, 0, 1, 2] = 0.5
        network.conv1.weight[3, 2, 0, 0] = -0.25
    filters = first_filters(network)
    assert (filters.name, filters.total, filters.components) == ("conv1", 64, False)
    assert filters.images.shape == (64, 7, 7, 3)
    assert (filters.images[4] == 128).all()
    assert filters.images[3, 1, 2].tolist() == [255, 128, 128]
    assert filters.images[3, 0, 0].tolist() == [128, 128, 64]


def test_filters_of_a_grey_network_are_grey() -> None:
    network = timm.create_model("resnet10t", in_chans=1)
    with torch.no_grad():
        network.conv1[0].weight[3] = torch.linspace(-1, 1, 9).reshape(1, 3, 3)
    images = first_filters(network).images
    assert (images.dtype, images.shape) == (np.uint8, (24, 3, 3, 3))
    assert images[3].tolist() == [[[level] * 3 for level in row] for row in images[3, ..., 0]]
    assert images[3, ..., 0].ravel()[[0, 4, 8]].tolist() == [0, 128, 255]


def test_many_filters_are_shown_by_their_principal_components() -> None:
    network = timm.create_model("vit_tiny_patch16_224", **{**VIT, "embed_dim": 96})
    pattern = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.patch_embed.proj.weight.mul_(0.001).add_(torch.randn(96, 1, 1, 1) * pattern)
    filters = first_filters(network)
    assert (filters.total, filters.components) == (96, True)
    assert filters.images.shape == (28, 8, 8, 3)
    # A component has no sign; it gets one that is the same on every machine.
    assert (filters.images.reshape(28, -1).max(axis=1) == 255).all()
    shown = filters.images[0].astype(float) - 127.5
    assert abs(np.corrcoef(shown.ravel(), pattern.permute(1, 2, 0).numpy().ravel())[0, 1]) > 0.99


def test_without_a_convolution_on_the_pixels_filters_are_skipped() -> None:
    with pytest.raises(NotApplicableError, match="First filters"):
        first_filters(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5)))


@pytest.mark.parametrize(
    "arguments", [{}, {"no_embed_class": True}, {"class_token": False, "global_pool": "avg"}, {"reg_tokens": 4}]
)
def test_similarity_compares_the_embeddings_of_patches(arguments: dict[str, object]) -> None:
    network = timm.create_model("vit_tiny_patch16_224", **VIT, **arguments)
    nn.init.normal_(network.pos_embed)
    similarity = position_similarity(network)
    assert similarity.shape == (4, 4, 4, 4)
    patches = network.pos_embed.detach()[0, -16:]
    assert similarity[1, 2, 3, 0] == pytest.approx(float(cosine_similarity(patches[6], patches[12], dim=0)), abs=1e-6)
    np.testing.assert_allclose([similarity[i, j, i, j] for i in range(4) for j in range(4)], 1, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "beit_base_patch16_224"])
def test_without_position_embeddings_similarity_is_skipped(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name)
    with pytest.raises(NotApplicableError, match="position embeddings is skipped"):
        position_similarity(network)


def test_feature_maps_skip_a_stage_of_one_position() -> None:
    stages = feature_maps(timm.create_model("resnet18", channels=(8, 16, 24, 32)).eval(), PIXELS)
    assert [(stage.name, stage.maps.shape, stage.total) for stage in stages] == [
        ("act1", (6, 16, 16), 64),
        ("layer1", (6, 8, 8), 8),
        ("layer2", (6, 4, 4), 16),
        ("layer3", (6, 2, 2), 24),
    ]


def test_a_deep_network_shows_five_blocks_from_first_to_last() -> None:
    stages = feature_maps(timm.create_model("vit_tiny_patch16_224", **{**VIT, "depth": 12}).eval(), PIXELS)
    assert [stage.name for stage in stages] == ["blocks.0", "blocks.3", "blocks.6", "blocks.8", "blocks.11"]


def test_the_channels_that_vary_most_are_shown_first() -> None:
    network = nn.Sequential(nn.Conv2d(3, 9, 1, bias=False))
    with torch.no_grad():
        network[0].weight.zero_()
        for channel, gain in enumerate([1, 0, 5, 2, 9, 0, 3, 4, 8]):
            network[0].weight[channel, 0] = gain
    stage = feature_maps(network, PIXELS)[0]
    assert stage.channels == (4, 8, 2, 7, 6, 3)
    torch.testing.assert_close(torch.from_numpy(stage.maps[0]), 9 * PIXELS[0, 0])


def test_without_maps_they_are_skipped() -> None:
    with pytest.raises(NotApplicableError, match="Feature maps"):
        feature_maps(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5)), PIXELS)
