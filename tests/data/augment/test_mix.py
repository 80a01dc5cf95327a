from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from vit_vs_cnn.config.recipe import AugmentSettings
from vit_vs_cnn.data.augment.mix import mix


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mix_with(images: torch.Tensor, labels: torch.Tensor, seed: int = 0, **alphas: float) -> tuple[Any, Any]:
    return mix(images, labels, AugmentSettings(**alphas), seeded(seed))


def own_pixels(count: int, height: int = 12, width: int = 10) -> torch.Tensor:
    """Float images in which every pixel of image i has the value i."""
    return torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(count, 3, height, width)


def test_mix_switched_off_returns_the_very_tensors() -> None:
    images, labels, generator = own_pixels(4), torch.eye(4), seeded()
    before = generator.get_state()
    mixed_images, mixed_labels = mix(images, labels, AugmentSettings(), generator)
    assert mixed_images is images
    assert mixed_labels is labels
    assert torch.equal(generator.get_state(), before)


@given(seed=st.integers(0, 2**32), mixup=st.floats(0.05, 5), count=st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_mixup_mixes_labels_as_it_mixes_pixels(seed: int, mixup: float, count: int) -> None:
    images, labels = mix_with(own_pixels(count), torch.eye(count), seed, mixup=mixup)
    assert torch.allclose(labels.sum(dim=1), torch.ones(count))
    # With the value i in all of image i, a mixed pixel is the mean of the label's distribution.
    expected = labels @ torch.arange(count, dtype=torch.float32)
    assert torch.allclose(images, expected[:, None, None, None].expand_as(images), atol=1e-4)


@given(seed=st.integers(0, 2**32), cutmix=st.floats(0.05, 5), count=st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_cutmix_labels_are_exactly_the_shares_of_the_pixels(seed: int, cutmix: float, count: int) -> None:
    images, labels = mix_with(own_pixels(count), torch.eye(count), seed, cutmix=cutmix)
    assert torch.equal(images, images.round()), "a pixel comes from one image or from the other"
    shares = torch.nn.functional.one_hot(images[:, 0].long(), count).float().mean(dim=(1, 2))
    assert torch.allclose(labels, shares, atol=1e-6)
    foreign = images[:, 0] != torch.arange(count)[:, None, None]
    boxes = foreign.any(dim=2).sum(dim=1) * foreign.any(dim=1).sum(dim=1)
    assert torch.equal(boxes, foreign.sum(dim=(1, 2))), "what comes from the other image is one rectangle"


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
def test_own_share_follows_the_beta_distribution(method: str) -> None:
    # Beta(1, 1) is uniform. In cutmix clipping at the border only ever adds to the own share.
    count = 4000
    _, labels = mix_with(own_pixels(count, 32, 32), torch.eye(count), **{method: 1.0})
    own = labels.diagonal()
    assert len(own.unique()) > 100, "each image has its own draw"
    if method == "mixup":
        assert chisquare(torch.histc(own, bins=10, min=0, max=1)).pvalue > 1e-3
    else:
        assert 0.5 < own.mean() < 0.75


def test_both_methods_share_the_batch() -> None:
    count = 2000
    images, labels = mix_with(own_pixels(count), torch.eye(count), mixup=1.0, cutmix=1.0)
    flat = images.flatten(1)
    blended = (flat == flat[:, :1]).all(dim=1) & (flat[:, 0] != torch.arange(count))
    cut = (flat != flat[:, :1]).any(dim=1)
    assert binomtest(int(blended.sum()), count, 0.5).pvalue > 1e-3
    assert 0.4 < cut.float().mean() < 0.6
    assert torch.allclose(labels.sum(dim=1), torch.ones(count))


def test_mix_depends_on_the_generator_alone() -> None:
    images, labels = own_pixels(8), torch.eye(8)
    first, again, other = (mix_with(images, labels, seed, mixup=0.8, cutmix=1.0) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
