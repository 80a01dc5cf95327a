import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits

from vit_vs_cnn.data.duplicates import Groups, fingerprint, identical_groups, near_groups


def scenes(count: int, side: int = 32) -> np.ndarray:
    """Smooth pictures that look nothing alike, uint8 (count, side, side, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC)) for c in coarse])


def groups_of(images: np.ndarray) -> tuple[list[list[int]], list[list[int]]]:
    prints = fingerprint(images)
    return rows_of(identical_groups(prints)), rows_of(near_groups(prints))


def rows_of(groups: Groups) -> list[list[int]]:
    return [rows.tolist() for rows in groups.first(len(groups))]


def look_alikes(count: int) -> np.ndarray:
    """Handwritten digits, each many times with a little noise, uint8 (count, 8, 8, 3)."""
    rng = np.random.default_rng(0)
    images = 15 * load_digits().images[rng.integers(0, 1797, count)] + rng.integers(0, 10, (count, 8, 8))
    return np.repeat(images[..., None].astype(np.uint8), 3, axis=3)


def brute_force(images: np.ndarray) -> list[list[int]]:
    """What all pairs connect whose hashes and pixels are near enough; the images have 8×8 pixels."""
    hashes = fingerprint(images).hashes.tolist()
    pixels = images.reshape(len(images), -1).astype(float)
    group = list(range(len(images)))
    for i, j in combinations(range(len(images)), 2):
        if (hashes[i] ^ hashes[j]).bit_count() <= 8 and np.corrcoef(pixels[i], pixels[j])[0, 1] >= 0.98:
            group = [group[i] if label == group[j] else label for label in group]
    members = [[row for row in range(len(group)) if group[row] == label] for label in dict.fromkeys(group)]
    return [rows for rows in members if len(rows) > 1]


def test_identical_images_are_grouped_and_others_are_not():
    images = scenes(200)
    images[[50, 120]] = images[7]
    images[90] = images[30]
    assert groups_of(images) == ([[7, 50, 120], [30, 90]], [])


def test_one_changed_level_is_no_longer_identical_but_nearly_so():
    images = scenes(50)
    images[20] = images[3]
    images[20, 16, 16, 1] ^= 1
    assert groups_of(images) == ([], [[3, 20]])


def test_a_recompressed_brighter_or_shifted_copy_is_nearly_identical():
    images = scenes(300, side=64)
    original = Image.fromarray(images[0])
    images[100] = np.asarray(ImageEnhance.Brightness(original).enhance(0.8))
    images[200] = np.asarray(original.resize((30, 30)).resize((64, 64)))
    images[250] = np.roll(images[0], 1, axis=1)
    assert groups_of(images) == ([], [[0, 100, 200, 250]])


def test_pictures_of_one_colour_are_constant_and_never_nearly_identical():
    images = scenes(4)
    images[1] = (10, 20, 30)
    images[2] = (11, 20, 30)
    prints = fingerprint(images)
    assert prints.constant.tolist() == [False, True, True, False]
    assert groups_of(images) == ([], [])


def test_fingerprints_do_not_depend_on_where_an_image_stands():
    images = scenes(2_000, side=40)
    together, alone = fingerprint(images), fingerprint(images[1_500:1_501])
    assert together.hashes[1_500] == alone.hashes[0]
    assert together.digests[1_500].tolist() == alone.digests[0].tolist()


def test_few_images_are_no_problem():
    assert groups_of(scenes(1)) == ([], [])
    assert groups_of(np.zeros((2, 8, 8, 3), np.uint8)) == ([[0, 1]], [])


@pytest.mark.parametrize("count", [3, 5])
def test_of_few_images_every_pair_is_compared(count: int):
    images = look_alikes(400)
    for start in range(0, 400 - count, count):
        part = np.concatenate([images[start : start + count - 1], images[start : start + 1] ^ 1])
        assert groups_of(part)[1] == brute_force(part)


def test_of_many_look_alikes_no_two_are_grouped_that_no_chain_of_pairs_connects():
    images = look_alikes(300)
    group_of = {row: number for number, rows in enumerate(brute_force(images)) for row in rows}
    found = groups_of(images)[1]
    assert found
    assert all(len({group_of[row] for row in rows}) == 1 for rows in found)


def test_memory_grows_with_the_images_and_not_with_their_pairs():
    def peak(count: int) -> int:
        images = look_alikes(count).repeat(2, axis=1).repeat(2, axis=2)
        tracemalloc.start()
        groups = near_groups(fingerprint(images))
        assert len(groups.rows) > count / 2
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # So that 1.3 million images take less than a gigabyte.
    assert peak(8_000) - peak(4_000) < 4_000 * 750


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.lists(st.integers(0, 3), min_size=30, max_size=30))
def test_groups_hold_the_rows_of_each_content_and_tell_how_they_differ(contents: list[int], values: list[int]):
    images = np.array(contents, np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    groups = identical_groups(fingerprint(images))
    members = [[row for row, content in enumerate(contents) if content == other] for other in dict.fromkeys(contents)]
    expected = [rows for rows in members if len(rows) > 1]
    assert rows_of(groups) == expected
    assert [rows.tolist() for rows in groups.first(2)] == expected[:2]
    assert groups.sizes.tolist() == [len(rows) for rows in expected]
    distinct = [len({values[row] for row in rows}) for rows in expected]
    assert groups.distinct(np.array(values[: len(contents)])).tolist() == distinct
    varied = groups.select(np.array(distinct, int) > 1)
    assert rows_of(varied) == [rows for rows, count in zip(expected, distinct, strict=True) if count > 1]
