import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vit_vs_cnn.data.statistics import MEAN_IMAGE_SIDE, beyond_fences, pixel_statistics, spread_by_class


def random_images(count: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 30),
    side=st.integers(8, 20),
    classes=st.integers(2, 6),
    workers=st.integers(1, 5),
)
@settings(max_examples=25, deadline=None)
def test_statistics_are_those_of_one_image_at_a_time(
    seed: int, count: int, side: int, classes: int, workers: int
) -> None:
    images = random_images(count, side, seed)
    labels = np.random.default_rng(seed).integers(0, classes, count)
    found = pixel_statistics(images, labels, classes, workers)

    for channel in range(3):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        np.testing.assert_array_equal(found.histogram[channel], counts)
    np.testing.assert_allclose(found.correlation, np.corrcoef(images.reshape(-1, 3).T), atol=1e-9)
    for label in range(classes):
        own = images[labels == label]
        mean = own.mean(axis=0) if len(own) else np.zeros((side, side, 3))
        np.testing.assert_array_equal(found.mean_images[label], np.round(mean))
    for i, image in enumerate(images):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        gradient = np.hypot(cv2.Sobel(grey, cv2.CV_64F, 1, 0), cv2.Sobel(grey, cv2.CV_64F, 0, 1)) / 8
        assert found.measures["brightness"][i] == pytest.approx(grey.mean(), abs=1e-3)
        assert found.measures["contrast"][i] == pytest.approx(grey.std(), abs=1e-3)
        assert found.measures["sharpness"][i] == pytest.approx(gradient[1:-1, 1:-1].mean(), abs=1e-3)


def test_many_chunks_give_the_same_as_one_worker_with_memory_mapped_images(tmp_path) -> None:
    np.save(tmp_path / "images.npy", random_images(90, 224))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    labels = np.arange(90) % 4
    alone, together = pixel_statistics(mapped, labels, 4, workers=1), pixel_statistics(mapped, labels, 4, workers=3)
    np.testing.assert_array_equal(alone.histogram, together.histogram)
    np.testing.assert_array_equal(alone.correlation, together.correlation)
    np.testing.assert_array_equal(alone.mean_images, together.mean_images)
    pd.testing.assert_frame_equal(alone.measures, together.measures)
    assert alone.mean_images.shape == (4, MEAN_IMAGE_SIDE, MEAN_IMAGE_SIDE, 3)


def test_sharpness_is_the_slope_of_a_ramp() -> None:
    ramp = np.tile(np.arange(0, 96, 3, dtype=np.uint8), (32, 1))
    images = np.stack([np.repeat(image[..., None], 3, axis=2) for image in (ramp, ramp.T, np.full_like(ramp, 255))])
    found = pixel_statistics(images, np.zeros(3, np.int64), 1)
    np.testing.assert_allclose(found.measures["sharpness"], [3, 3, 0], atol=1e-5)


def test_grey_images_have_channels_that_correlate_fully_and_a_constant_channel_has_no_correlation() -> None:
    grey = np.repeat(random_images(5, 8)[..., :1], 3, axis=3)
    np.testing.assert_allclose(pixel_statistics(grey, np.zeros(5, np.int64), 1).correlation, 1, atol=1e-12)

    grey[..., 1] = 77
    found = pixel_statistics(grey, np.zeros(5, np.int64), 1).correlation
    assert np.isnan(found[1]).all()
    assert found[0, 2] == pytest.approx(1)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_the_spread_of_a_class_is_tukeys(levels: list[int]) -> None:
    values, labels = pd.Series(levels, dtype=np.float32), np.ones(len(levels), np.int64)
    found = spread_by_class(values, labels, 3)
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    assert tuple(found.loc[1, ["q1", "median", "q3"]]) == (q1, median, q3)
    assert found.loc[[0, 2]].isna().all(axis=None), "classes without images"
    beyond = beyond_fences(values, labels, found)
    low_whisker, high_whisker = found.loc[1, ["low_whisker", "high_whisker"]]
    np.testing.assert_array_equal(beyond != 0, (values < low_whisker) | (values > high_whisker))
    np.testing.assert_array_equal(beyond != 0, np.abs(values - (q1 + q3) / 2) > 2 * (q3 - q1))
    assert low_whisker <= median <= high_whisker


def test_what_lies_beyond_is_the_signed_distance_from_the_fence_of_the_own_class() -> None:
    values = pd.Series([0, 10, 10, 10, 20, 35, 100, 100, 100], dtype=np.float32)
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
    spread = spread_by_class(values, labels, 2)
    assert tuple(spread.loc[0, ["low_fence", "high_fence"]]) == (-1.25, 28.75)
    np.testing.assert_allclose(beyond_fences(values, labels, spread), [0, 0, 0, 0, 0, 6.25, 0, 0, 0])
