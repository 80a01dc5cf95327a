import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_vs_cnn.data.levels import find_range, highest_level, sample_levels


def test_the_samples_of_a_set_take_little_memory_however_many_images_it_has():
    image = np.arange(2**18, dtype=np.uint16)
    for images in (1, 100, 10**5, 10**8):
        assert images * sample_levels(image, images, 0).nbytes <= max(2**24, 4 * images)


def test_small_images_are_sampled_whole_and_without_what_is_no_number():
    image = np.array([[np.nan, 1.5], [np.inf, -2.0]], np.float32)
    assert sorted(sample_levels(image, 10, 0)) == [-2.0, 1.5]
    assert highest_level(image) == 1.5
    assert highest_level(np.full((2, 2), np.nan, np.float32)) == -np.inf


@settings(max_examples=20, deadline=None)
@given(low=st.integers(0, 5000), span=st.integers(500, 50_000), seed=st.integers(0, 99))
def test_the_range_is_that_of_nearly_all_pixels_in_any_order(low: int, span: int, seed: int):
    rng = np.random.default_rng(seed)
    images = [rng.integers(low, low + span, (64, 64)).astype(np.uint16) for _ in range(4)]
    images[0][0, :3] = 65535
    samples = [sample_levels(image, len(images), position) for position, image in enumerate(images)]
    found = find_range(samples)
    assert found is not None
    assert found == pytest.approx((low, low + span), abs=0.01 * span)
    assert find_range(samples[::-1]) == found


def test_one_level_is_a_range_and_no_samples_are_none():
    assert find_range([np.full(9, 7, np.float32)]) == (7.0, 8.0)
    assert find_range([]) is None
