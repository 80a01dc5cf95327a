import numpy as np
from PIL import Image, ImageEnhance

from vit_vs_cnn.data.duplicates import fingerprint, identical_groups, near_groups


def scenes(count: int, side: int = 32) -> np.ndarray:
    """Smooth pictures that look nothing alike, uint8 (count, side, side, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC)) for c in coarse])


def groups_of(images: np.ndarray) -> tuple[list[list[int]], list[list[int]]]:
    prints = fingerprint(images)
    return [g.tolist() for g in identical_groups(prints)], [g.tolist() for g in near_groups(images, prints)]


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
    assert together.digests[1_500] == alone.digests[0]


def test_few_images_are_no_problem():
    assert groups_of(scenes(1)) == ([], [])
    assert groups_of(np.zeros((2, 8, 8, 3), np.uint8)) == ([[0, 1]], [])
