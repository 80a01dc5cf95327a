import numpy as np
import pytest
from sklearn.datasets import load_digits

from vit_vs_cnn.data.sources.digits import open_digits


@pytest.mark.parametrize("size", [8, 32])
def test_each_pixel_becomes_a_block_of_one_grey(size: int):
    source = open_digits(size)
    images = np.stack([pixels for _, pixels in source.read()])
    assert images.shape == (1797, size, size, 3)
    assert images.dtype == np.uint8
    assert (images == images[..., :1]).all()
    block = size // 8
    blocks = images[..., 0].reshape(-1, 8, block, 8, block)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    digits = load_digits()
    assert (np.round(blocks[:, :, 0, :, 0] * (16 / 255)) == digits.images).all()
    assert images.max() == 255
    assert (source.labels == digits.target).all()


def test_a_size_that_is_no_multiple_is_drawn_all_the_same():
    assert next(iter(open_digits(20).read()))[1].shape == (20, 20, 3)
