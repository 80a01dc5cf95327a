from pathlib import Path

import cv2
import numpy as np
import pytest

from vit_vs_cnn.report.grid import Tile, image_grid, resized, shortened


def test_a_tile_stands_pixel_by_pixel_in_the_png(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tiles = [Tile(random.integers(0, 256, (16, 16, 3), dtype=np.uint8), f"tile {i}\nof two lines") for i in range(5)]
    figure = image_grid(
        [tiles[:3], [tiles[3], None, tiles[4]]], 48, row_labels=["first", "second"], column_labels="abc"
    )
    figure.savefig(tmp_path / "grid.png")
    picture = cv2.imread(str(tmp_path / "grid.png"))[..., ::-1].astype(np.float32)
    for tile in tiles:
        wanted = resized(tile.image, 48).astype(np.float32)
        difference = cv2.matchTemplate(picture, wanted, cv2.TM_SQDIFF)
        assert difference.min() <= 1e-6 * (wanted**2).sum()


def test_images_shrink_by_averaging_and_grow_by_repeating() -> None:
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(resized(image, 8), image.repeat(2, axis=0).repeat(2, axis=1))
    blocks = image.reshape(2, 2, 2, 2, 3).mean(axis=(1, 3))
    assert np.abs(resized(image, 2) - blocks).max() <= 0.5


@pytest.mark.parametrize(
    ("text", "length", "short"), [("cat", 3, "cat"), ("a very long name", 7, "a …name"), ("abcdef", 4, "a…ef")]
)
def test_shortened_keeps_both_ends(text: str, length: int, short: str) -> None:
    assert shortened(text, length) == short
    assert len(short) <= length
