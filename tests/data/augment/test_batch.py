from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from vit_vs_cnn.config.recipe import AugmentSettings
from vit_vs_cnn.data.augment.batch import augment
from vit_vs_cnn.data.augment.geometry import alternating_flips

OFF: dict[str, Any] = {
    name: False if field.annotation is bool else 0.0 for name, field in AugmentSettings.model_fields.items()
}
ALL_CHANGES: dict[str, Any] = {
    "flip": 0.5,
    "alternating_flip": True,
    "translate": 0.25,
    "rotation": 30.0,
    "resize": 0.5,
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.5,
    "hue": 0.3,
    "erase": 0.9,
    "cutout": 0.5,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(**switched_on: Any) -> Callable[..., torch.Tensor]:
    """The augmentation with these changes and no other: a function of images, generator and `mirrored`."""
    chosen = AugmentSettings(**(OFF | switched_on))
    return lambda images, *draws: augment(images, chosen, *draws)


def random_images(count: int = 6, side: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=seeded(seed))


def equal_images(count: int, side: int = 16) -> torch.Tensor:
    """Copies of one image in which the first channel is the row and the second the column of each pixel."""
    places = torch.arange(side, dtype=torch.uint8)
    image = torch.stack([places[:, None].expand(side, side), places.expand(side, side), places.expand(side, side)], -1)
    return image.expand(count, -1, -1, -1)


def test_everything_off_is_the_identity_and_draws_nothing() -> None:
    images, generator = random_images(), seeded()
    before = generator.get_state()
    assert only()(images, generator) is images
    assert torch.equal(generator.get_state(), before)


def test_flip_with_certainty_is_the_exact_mirror() -> None:
    images = random_images()
    assert torch.equal(only(flip=1.0)(images, seeded()), images.flip(2))


@given(
    seed=st.integers(0, 2**32),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    alternating_flip=st.booleans(),
    translate=st.floats(0, 0.5),
    rotation=st.floats(0, 180),
    resize=st.floats(0, 0.95),
    brightness=st.floats(0, 0.9),
    contrast=st.floats(0, 0.9),
    saturation=st.floats(0, 1),
    hue=st.floats(0, 0.5),
    erase=st.sampled_from([0.0, 0.5, 1.0]),
    cutout=st.floats(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_the_generator_alone_decides_and_the_originals_stay(seed: int, **switched_on: Any) -> None:
    images = random_images()
    originals = images.clone()
    change = only(**switched_on)
    first = change(images, seeded(seed))
    assert torch.equal(first, change(images, seeded(seed)))
    assert first.dtype == torch.uint8
    assert first.shape == images.shape
    assert torch.equal(images, originals)


@pytest.mark.parametrize("name", ALL_CHANGES)
def test_each_image_has_its_own_draw(name: str) -> None:
    change = only(**{name: ALL_CHANGES[name]})
    changed = change(equal_images(64), seeded())
    assert len(torch.unique(changed, dim=0)) > 1
    assert not torch.equal(change(equal_images(64), seeded(1)), changed)


def test_every_change_is_tested_here() -> None:
    assert ALL_CHANGES.keys() | {"mixup", "cutmix"} == AugmentSettings.model_fields.keys()


@given(seed=st.integers(0, 2**32), epoch=st.integers(1, 300))
@settings(max_examples=30, deadline=None)
def test_an_alternating_flip_mirrors_each_image_in_every_other_epoch(seed: int, epoch: int) -> None:
    images = random_images(50)
    change = only(alternating_flip=True)
    now, next_time = (alternating_flips(50, shown, seed) for shown in (epoch, epoch + 1))
    assert torch.equal(now, ~next_time)
    assert 0 < now.sum() < 50
    for mirrored in (now, next_time):
        expected = torch.where(mirrored[:, None, None, None], images.flip(2), images)
        assert torch.equal(change(images, seeded(), mirrored), expected)


def test_flips_come_at_the_rate_asked_for() -> None:
    changed = only(flip=0.3)(equal_images(4000), seeded())
    flipped = int((changed[:, 0, 0, 1] != 0).sum())
    assert binomtest(flipped, 4000, 0.3).pvalue > 1e-3


def test_shifts_are_uniform_in_both_directions_and_reflect_at_the_border() -> None:
    side, reach = 16, 4
    changed = only(translate=reach / side)(equal_images(9000, side), seeded())
    # Far from the border, the value of a pixel is the place from which it came.
    vertical = changed[:, 8, 8, 0].long() - 8
    horizontal = changed[:, 8, 8, 1].long() - 8
    for shift in (vertical, horizontal):
        counts = torch.bincount(shift + reach, minlength=2 * reach + 1)
        assert len(counts) == 2 * reach + 1
        assert chisquare(counts).pvalue > 1e-3
    pairs = torch.bincount((vertical + reach) * (2 * reach + 1) + horizontal + reach, minlength=(2 * reach + 1) ** 2)
    assert chisquare(pairs).pvalue > 1e-3

    rows = torch.arange(side) + vertical[:, None]
    expected = torch.where(rows < 0, -rows, torch.where(rows >= side, 2 * (side - 1) - rows, rows))
    assert torch.equal(changed[:, :, 0, 0].long(), expected)


def test_brightness_scales_within_its_range() -> None:
    changed = only(brightness=0.25)(torch.full((3000, 2, 2, 3), 100, dtype=torch.uint8), seeded())
    levels = changed[:, 0, 0, 0]
    assert torch.equal(changed, levels[:, None, None, None].expand_as(changed))
    assert (int(levels.min()), int(levels.max())) == (75, 125)
    counts = torch.histc(levels.float(), bins=5, min=75, max=125.001)
    assert chisquare(counts).pvalue > 1e-3


def test_brightness_saturates_instead_of_wrapping_round() -> None:
    changed = only(brightness=0.5)(torch.full((200, 2, 2, 3), 250, dtype=torch.uint8), seeded())
    assert int(changed.min()) >= 125
    assert int(changed.max()) == 255


def test_contrast_keeps_the_mean_and_changes_the_spread() -> None:
    images = torch.tensor([80, 120], dtype=torch.uint8).repeat(500, 2, 3, 1).transpose(2, 3)
    changed = only(contrast=0.5)(images, seeded()).float()
    assert torch.allclose(changed.mean(dim=(1, 2, 3)), torch.tensor(100.0), atol=0.51)
    spread = changed.amax(dim=(1, 2, 3)) - changed.amin(dim=(1, 2, 3))
    assert 20 <= spread.min() < 24
    assert 56 < spread.max() <= 60


def test_erasing_fills_one_square_with_the_mean_of_the_image() -> None:
    side = 32
    images = torch.zeros(2000, side, side, 3, dtype=torch.uint8)
    images[:, ::2] = torch.tensor([200, 100, 50], dtype=torch.uint8)
    changed = only(erase=0.4)(images, seeded())
    erased = (changed != images).any(dim=3)
    hit = erased.flatten(1).any(dim=1)
    assert binomtest(int(hit.sum()), 2000, 0.4).pvalue > 1e-3
    assert torch.equal(changed[erased].unique(dim=0), torch.tensor([[100, 50, 25]], dtype=torch.uint8))
    heights, widths = erased[hit].any(dim=2).sum(dim=1), erased[hit].any(dim=1).sum(dim=1)
    assert torch.equal(heights, widths)
    assert torch.equal(heights * widths, erased[hit].sum(dim=(1, 2)))
    assert (int(heights.min()), int(heights.max())) == (side // 8, side // 2)


def test_cutout_takes_a_square_around_any_pixel_from_every_image() -> None:
    side, size = 32, 12
    images = torch.zeros(4000, side, side, 3, dtype=torch.uint8)
    images[:, ::2] = 200
    changed = only(cutout=size / side)(images, seeded())
    erased = (changed != images).any(dim=3)
    assert torch.equal(changed[erased].unique(), torch.tensor([100], dtype=torch.uint8))
    heights, widths = erased.any(dim=2).sum(dim=1), erased.any(dim=1).sum(dim=1)
    assert torch.equal(heights * widths, erased.sum(dim=(1, 2)))
    assert (int(heights.min()), int(heights.max())) == (size // 2, size)
    # Inside the image the whole square is there: its upper edge is uniform over the places where it fits.
    tops = erased.any(dim=2).int().argmax(dim=1)[heights == size]
    counts = torch.bincount(tops, minlength=side - size + 1)
    assert chisquare(counts[1:]).pvalue > 1e-3


def test_colours_of_grey_images_do_not_change() -> None:
    grey = torch.randint(0, 256, (16, 12, 12, 1), dtype=torch.uint8).expand(-1, -1, -1, 3).contiguous()
    assert torch.equal(only(saturation=1.0, hue=0.5)(grey, seeded()), grey)
