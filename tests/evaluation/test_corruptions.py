"""Corruptions: each does what its severity says, whatever the size of the images and of the batch."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from factories import REPOSITORY
from vit_vs_cnn.evaluation.corruptions import CORRUPTIONS, MOST_SEVERE, Corruption, corrupted, corruptions_of

BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}
BLANK = (10, 20, 30)
Images = NDArray[np.uint8]


def photographs(count: int, side: int, seed: int = 0) -> Images:
    """Smooth images with colours, edges and all levels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(0, 1.5, (3 * count, 3))]
    return (127 + 100 * np.stack(waves).reshape(count, 3, side, side).transpose(0, 2, 3, 1)).astype(np.uint8)


def changed(name: str, images: Images, level: float, **options: Any) -> Images:
    return corrupted(images, range(len(images)), BY_NAME[name], level, **{"blank": BLANK, **options})


@given(
    corruption=st.sampled_from(CORRUPTIONS), severity=st.integers(0, MOST_SEVERE - 1), side=st.integers(8, 40),
    count=st.integers(1, 7), batch_size=st.integers(1, 8), seed=st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=60)
def test_an_image_is_changed_alike_alone_and_in_any_batch(
    corruption: Corruption, severity: int, side: int, count: int, batch_size: int, seed: int
) -> None:
    images = photographs(count, side, seed)
    seeds = list(range(seed, seed + count))
    level = corruption.levels[min(severity, len(corruption.levels) - 1)]
    together = corrupted(images, seeds, corruption, level, blank=BLANK)
    in_batches = corrupted(images, seeds, corruption, level, blank=BLANK, batch_size=batch_size)
    assert together.shape == images.shape
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(together, in_batches)
    np.testing.assert_array_equal(together[-1:], corrupted(images[-1:], seeds[-1:], corruption, level, blank=BLANK))


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_severity_changes_images_more_than_the_one_before(name: str) -> None:
    images = photographs(40, 32)
    # Of patches that change places, how many do.
    distances = [np.abs(changed(name, images, level).astype(int) - images).mean() for level in BY_NAME[name].levels]
    if name != "patches_shuffled":
        assert distances == sorted(distances)
    assert distances[0] > 0
    assert len(distances) <= MOST_SEVERE


@pytest.mark.parametrize("grey", [False, True])
def test_noise_has_the_deviation_of_its_level_and_grey_images_have_grey_noise(grey: bool) -> None:
    images = np.full((20, 32, 32, 3), 128, np.uint8)
    noisy = changed("noise", images, 0.1, grey=grey)
    assert noisy.std() == pytest.approx(25.5, rel=0.03)
    assert noisy.mean() == pytest.approx(128, abs=0.5)
    assert (noisy == noisy[..., :1]).all() == grey
    assert not (noisy[0] == noisy[1]).all()


@pytest.mark.parametrize("side", [32, 96])
def test_blur_is_as_wide_as_its_share_of_the_side(side: int) -> None:
    images = np.zeros((1, side, side, 3), np.uint8)
    images[:, :, side // 2] = 255
    profile = changed("blur", images, 1 / 16)[0, side // 2, :, 0].astype(float)
    places = np.arange(side) - side // 2
    assert np.sqrt((profile * places**2).sum() / profile.sum()) == pytest.approx(side / 16, rel=0.05)


def test_brightness_and_saturation_go_up_or_down_by_image() -> None:
    images = np.full((60, 8, 8, 3), 100, np.uint8)
    assert set(np.unique(changed("brightness", images, 0.3))) == {70, 130}
    images[..., 0] = 160
    spread = np.ptp(changed("saturation", images, 0.5), axis=-1)
    assert {int(value) for value in np.unique(spread)} <= {29, 30, 31, 89, 90, 91}
    assert spread.min() < 60 < spread.max()


def test_contrast_keeps_its_share_of_the_range() -> None:
    images = np.zeros((1, 8, 8, 3), np.uint8)
    images[:, :4] = 200
    dimmed = changed("contrast", images, 0.2)
    assert int(dimmed.max()) - int(dimmed.min()) == pytest.approx(40, abs=1)


def test_pixelation_leaves_squares() -> None:
    blocks = changed("pixelation", photographs(1, 32), 0.25)[0].reshape(8, 4, 8, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


@pytest.mark.parametrize("side", [8, 24])
def test_what_moves_brings_its_reflection_in_and_nothing_blank(side: int) -> None:
    white = np.full((12, side, side, 3), 255, np.uint8)
    for name in ("rotation", "shear", "translation"):
        for level in BY_NAME[name].levels:
            assert changed(name, white, level).min() > 250, (name, level)


def test_translation_is_by_whole_pixels_along_both_sides() -> None:
    images = photographs(20, 16)
    for image, moved in zip(images, changed("translation", images, 3), strict=True):
        forth, back = (image[:-3, :-3] == moved[3:, 3:]).all(), (image[3:, 3:] == moved[:-3, :-3]).all()
        assert forth != back


@pytest.mark.parametrize("side", [8, 16, 30])
def test_so_many_patches_are_dropped_others_from_image_to_image(side: int) -> None:
    images = np.full((5, side, side, 3), 200, np.uint8)
    dropped = changed("patches_dropped", images, 0.5)
    is_blank = (dropped == BLANK).all(axis=-1)
    assert ((dropped == 200).all(axis=-1) | is_blank).all()
    rows = np.arange(side) * 8 // side
    first = np.searchsorted(rows, np.arange(8))
    assert (is_blank[:, first][:, :, first].sum(axis=(1, 2)) == 32).all()
    assert (is_blank[0] != is_blank[1]).any()


@given(side=st.integers(8, 40), grid=st.sampled_from(BY_NAME["patches_shuffled"].levels), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_shuffled_patches_are_all_there_in_other_places(side: int, grid: float, seed: int) -> None:
    count = int(grid)
    cell = side // count
    start = (side - cell * count) // 2
    image = np.random.default_rng(seed).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    moved = corrupted(image, [seed], BY_NAME["patches_shuffled"], grid, blank=BLANK)

    def patches(images: Images) -> set[bytes]:
        inner = images[0, start : start + cell * count, start : start + cell * count]
        cells = inner.reshape(count, cell, count, cell, 3).swapaxes(1, 2)
        return {cells[row, column].tobytes() for row in range(count) for column in range(count)}

    assert patches(moved) == patches(image)
    outside = np.ones((side, side), bool)
    outside[start : start + cell * count, start : start + cell * count] = False
    np.testing.assert_array_equal(moved[0][outside], image[0][outside])


def test_grey_images_have_no_saturation() -> None:
    colour = photographs(2, 8)
    assert corruptions_of(colour) == list(CORRUPTIONS)
    names = {corruption.name for corruption in corruptions_of(np.repeat(colour[..., :1], 3, axis=-1))}
    assert names == set(BY_NAME) - {"saturation"}


def test_the_page_says_what_each_severity_is() -> None:
    page = (REPOSITORY / "docs/robustness.md").read_text(encoding="utf-8")
    for corruption in CORRUPTIONS:
        labels = [*corruption.labels, *["–"] * (MOST_SEVERE - len(corruption.levels))]
        assert f"| {corruption.title} | {' | '.join(labels)} |" in page
