"""The augmentation of batches against torchvision's transforms of single images, with the same parameters."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, ks_2samp
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from vit_vs_cnn.config.recipe import AugmentSettings
from vit_vs_cnn.data.augment import colour
from vit_vs_cnn.data.augment.batch import augment
from vit_vs_cnn.data.augment.geometry import resample, rotate_and_crop
from vit_vs_cnn.data.augment.mix import mix

OFF: dict[str, Any] = {
    name: False if field.annotation is bool else 0.0 for name, field in AugmentSettings.model_fields.items()
}
SIDE = 16
DRAWS = 1500
# Two samples of one distribution fall below it once in a thousand times, and the seeds are fixed.
UNLIKELY = 1e-3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 256, (count, SIDE, SIDE, 3), dtype=torch.uint8, generator=seeded(seed))


def picture() -> Tensor:
    """One smooth uint8 image (H, W, 3) without any symmetry."""
    x, y = torch.meshgrid(torch.linspace(0, 1, SIDE), torch.linspace(0, 1, SIDE), indexing="xy")
    return (torch.stack([30 + 170 * x, 20 + 200 * y * x, 220 - 150 * y], dim=2)).to(torch.uint8)


def batched(**switched_on: Any) -> Tensor:
    """The picture, augmented DRAWS times as one batch."""
    images = picture().expand(DRAWS, -1, -1, -1)
    return augment(images, AugmentSettings(**(OFF | switched_on)), seeded()).float()


def one_by_one(transform: Callable[[Tensor], Tensor]) -> Tensor:
    """The picture, DRAWS times through a transform of torchvision; float (N, H, W, 3)."""
    image = picture().permute(2, 0, 1)
    torch.manual_seed(0)
    return torch.stack([transform(image) for _ in range(DRAWS)]).permute(0, 2, 3, 1).float()


def require_same_distribution(ours: Tensor, theirs: Tensor) -> None:
    """Means, spreads and single pixels: per image, compared over all draws."""
    statistics: list[Callable[[Tensor], Tensor]] = [
        lambda images: images.mean(dim=(1, 2, 3)),
        lambda images: images.std(dim=(1, 2, 3)),
        lambda images: images[:, SIDE // 2, SIDE // 2, 0],
        lambda images: images[:, SIDE // 4, SIDE // 2, 1],
        lambda images: images[:, SIDE // 2, -SIDE // 4, 2],
    ]
    for statistic in statistics:
        # Rounding differs by a level at most; that is no difference of the distributions.
        noise = torch.rand(2, DRAWS, generator=seeded(2)) * 2
        assert ks_2samp(statistic(ours) + noise[0], statistic(theirs) + noise[1]).pvalue > UNLIKELY


@pytest.mark.parametrize(
    ("switched_on", "transform"),
    [
        ({"brightness": 0.4}, v2.ColorJitter(brightness=0.4)),
        ({"contrast": 0.4}, v2.ColorJitter(contrast=0.4)),
        ({"saturation": 0.7}, v2.ColorJitter(saturation=0.7)),
        ({"hue": 0.3}, v2.ColorJitter(hue=0.3)),
        ({"resize": 0.7}, v2.RandomResizedCrop(SIDE, scale=(0.3, 1.0), antialias=True)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_images_are_distributed_as_torchvisions(switched_on: dict[str, Any], transform: v2.Transform) -> None:
    require_same_distribution(batched(**switched_on), one_by_one(transform))


def test_the_rotation_is_distributed_as_torchvisions_inside_the_border() -> None:
    ours = batched(rotation=40.0)
    theirs = one_by_one(v2.RandomRotation(40, interpolation=v2.InterpolationMode.BILINEAR))
    inside = slice(SIDE // 4, -SIDE // 4)  # no corner comes here: they differ, reflected here and black there
    for row, column, channel in ((0, 0, 0), (0, -1, 1), (-1, 3, 2)):
        pair = [images[:, inside, inside][:, row, column, channel] for images in (ours, theirs)]
        assert ks_2samp(*pair).pvalue > UNLIKELY


def test_flips_and_shifts_come_as_often_as_torchvisions() -> None:
    reach = 2
    ours = batched(flip=0.3, translate=reach / SIDE)
    theirs = one_by_one(
        v2.Compose([v2.RandomCrop(SIDE, padding=reach, padding_mode="reflect"), v2.RandomHorizontalFlip(0.3)])
    )
    kinds, which = torch.cat([ours, theirs]).flatten(1).unique(dim=0, return_inverse=True)
    assert len(kinds) == 2 * (2 * reach + 1) ** 2, "not one image that only one of them makes"
    table = torch.stack([torch.bincount(which[:DRAWS], minlength=len(kinds)), torch.bincount(which[DRAWS:])])
    assert chi2_contingency(table.numpy()).pvalue > UNLIKELY


def test_erasing_is_as_frequent_as_torchvisions() -> None:
    erased = (batched(erase=0.35) != picture().float()).flatten(1).any(dim=1)
    theirs = (one_by_one(v2.RandomErasing(0.35)) != picture().float()).flatten(1).any(dim=1)
    table = [[int(hit.sum()), int((~hit).sum())] for hit in (erased, theirs)]
    assert chi2_contingency(table).pvalue > UNLIKELY


@pytest.mark.parametrize("transform", [v2.MixUp, v2.CutMix])
def test_labels_are_mixed_in_shares_distributed_as_torchvisions(transform: type[v2.Transform]) -> None:
    side, draws = 128, 800  # so large that rounding the box to whole pixels does not show
    torch.manual_seed(0)
    mix_pair = transform(alpha=0.6, num_classes=2)
    pair = torch.zeros(2, 1, side, side), torch.tensor([0, 1])
    theirs = torch.stack([mix_pair(*pair)[1][0, 0] for _ in range(draws)])
    switched_on = AugmentSettings(**(OFF | {transform.__name__.lower(): 0.6}))
    ours = mix(torch.zeros(draws, 1, side, side), torch.eye(draws), switched_on, seeded())[1].diagonal()
    assert ks_2samp(ours, theirs).pvalue > UNLIKELY


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 2.0), st.floats(-0.5, 0.5), st.integers(0, 1000))
def test_a_given_factor_changes_light_and_colour_as_torchvision_does(factor: float, shift: float, seed: int) -> None:
    images = random_images(3, seed)
    # As floats: of uint8 images torchvision cuts the fraction off twice, of the grey and of the result.
    planes, factors = images.permute(0, 3, 1, 2) / 255, torch.full((3,), factor)
    pairs = [
        (colour.adjust_brightness(images.float(), factors), reference.adjust_brightness(planes, factor)),
        (colour.adjust_contrast(images.float(), factors), reference.adjust_contrast(planes, factor)),
        (colour.adjust_saturation(images.float(), factors), reference.adjust_saturation(planes, factor)),
        (colour.adjust_hue(images.float(), torch.full((3,), shift)), reference.adjust_hue(planes, shift)),
    ]
    for ours, theirs in pairs:
        difference = colour.to_uint8(ours).int() - colour.to_uint8(255 * theirs.permute(0, 2, 3, 1)).int()
        assert difference.abs().max() <= 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_no_change_asked_for_is_none(seed: int) -> None:
    images = random_images(3, seed)
    zero, one = torch.zeros(3), torch.ones(3)
    pixels = images.float()
    assert torch.equal(colour.to_uint8(colour.adjust_hue(pixels, zero)), images)
    for adjust in (colour.adjust_brightness, colour.adjust_contrast, colour.adjust_saturation):
        assert torch.equal(colour.to_uint8(adjust(pixels, one)), images)
    assert torch.equal(rotate_and_crop(images, 0.0, 0.0, seeded(seed)), images)


def rotated(images: Tensor, degrees: float) -> Tensor:
    places = (torch.arange(SIDE) - (SIDE - 1) / 2).expand(len(images), -1)
    return resample(images, places, places, torch.full((len(images),), degrees))


@pytest.mark.parametrize("degrees", [-170.0, -30.0, 12.5, 45.0, 90.0])
def test_a_given_angle_rotates_the_reflected_image_as_torchvision_does(degrees: float) -> None:
    images = random_images(4)
    padded = reference.pad(images.permute(0, 3, 1, 2), [SIDE // 2] * 4, padding_mode="symmetric")
    theirs = reference.rotate(padded, degrees, interpolation=v2.InterpolationMode.BILINEAR)
    theirs = reference.center_crop(theirs, [SIDE, SIDE]).permute(0, 2, 3, 1)
    assert (rotated(images, degrees).int() - theirs.int()).abs().max() <= 1


def test_a_quarter_turn_is_exact_and_reflects_nothing() -> None:
    images = random_images(4)
    assert torch.equal(rotated(images, 90.0), images.rot90(1, dims=(1, 2)))


def test_a_crop_never_shows_what_lies_outside_the_image() -> None:
    images = picture().expand(500, -1, -1, -1)
    changed = rotate_and_crop(images, 0.0, 0.9, seeded())
    for channel in range(3):
        assert changed[..., channel].min() >= images[..., channel].min()
        assert changed[..., channel].max() <= images[..., channel].max()
