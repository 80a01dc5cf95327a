import io
import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import PREPARED_SPLITS
from vit_vs_cnn.data.decode import DecodedImages, decode_source, map_in_threads
from vit_vs_cnn.data.pixels import decode_image
from vit_vs_cnn.data.sources.source import RawImage, Source, Unreadable

RED, WHITE = [255, 0, 0], [255, 255, 255]


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def noise(height: int, width: int, *channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def source_of(*images: RawImage) -> Source:
    return Source(
        description="made up",
        classes=("a", "b"),
        names=tuple(f"{position}.png" for position in range(len(images))),
        labels=np.zeros(len(images), np.int64),
        splits=np.zeros(len(images), np.int64),
        missing=(),
        read=lambda: enumerate(images),
    )


def test_pixels_of_the_right_size_are_kept_exactly():
    pixels = noise(16, 16, 3)
    assert (decode_image(encoded(Image.fromarray(pixels)), 16) == pixels).all()


@pytest.mark.parametrize(
    ("convert", "expected"),
    [
        (lambda image: image.convert("L"), [76, 76, 76]),
        (lambda image: image.convert("P"), RED),
        (lambda image: image.convert("CMYK"), RED),
        (lambda image: image.convert("1", dither=Image.Dither.NONE), [0, 0, 0]),
        (lambda image: image.convert("RGBA"), RED),
        (lambda image: image.convert("YCbCr"), [254, 0, 0]),
    ],
    ids=["grey", "palette", "cmyk", "bilevel", "rgba", "ycbcr"],
)
def test_every_mode_becomes_rgb(convert: Callable[[Image.Image], Image.Image], expected: list[int]):
    image = convert(Image.new("RGB", (8, 8), "red"))
    assert decode_image(encoded(image, "TIFF"), 8)[4, 4].tolist() == expected


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(format_: str):
    levels = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    decoded = decode_image(encoded(Image.fromarray(levels), format_), 2)
    assert decoded[..., 0].tolist() == [[0, 100], [200, 255]]
    assert (decoded == decoded[..., :1]).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pixels_are_refused_with_a_reason(dtype: type):
    image = Image.fromarray(np.full((4, 4), 70_000, dtype))
    with pytest.raises(ValueError, match="32-bit pixels"):
        decode_image(encoded(image, "TIFF"), 4)


def test_transparency_is_laid_over_white():
    rgba = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    rgba.paste((255, 0, 0, 255), (0, 0, 4, 8))
    grey = Image.new("LA", (8, 8), (0, 0))
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert decode_image(encoded(rgba), 8)[0, [0, 7]].tolist() == [RED, WHITE]
    assert decode_image(encoded(grey), 8)[0, 0].tolist() == WHITE
    assert decode_image(encoded(palette, transparency=1), 8)[0, 0].tolist() == WHITE
    assert decode_image(encoded(palette, transparency=0), 8)[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int):
    # How a camera stores an upright picture under each orientation: the inverse of what a viewer must do.
    upright = Image.fromarray(noise(16, 16, 3))
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(inverse[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (decode_image(encoded(stored, exif=exif), 16) == np.asarray(upright)).all()


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 90), height=st.integers(1, 90), size=st.sampled_from([8, 17, 32]))
def test_any_size_becomes_the_square_one(width: int, height: int, size: int):
    decoded = decode_image(encoded(Image.new("RGB", (width, height), "red")), size)
    assert decoded.shape == (size, size, 3)
    assert (decoded == RED).all()


def test_the_centre_is_kept():
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 32:64] = noise(32, 32, 3)
    assert (decode_image(encoded(Image.fromarray(pixels)), 32) == pixels[:, 32:64]).all()


def test_a_line_of_pixels_needs_no_memory_of_a_huge_image():
    assert decode_image(encoded(Image.new("RGB", (60_000, 1), "red")), 64).shape == (64, 64, 3)


def test_shrinking_averages_instead_of_picking_pixels():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    for format_ in ("PNG", "JPEG"):
        decoded = decode_image(encoded(Image.fromarray(stripes), format_), 16)
        assert np.abs(decoded.astype(int) - 127).max() < 20


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(content, 8)[0, 0].tolist() == RED


def decoded(source: Source, size: int = 8, splits: list[int] | None = None) -> tuple[DecodedImages, list[Unreadable]]:
    count = len(source.names)
    images = np.zeros((count, size, size, 3), np.uint8)
    return decode_source(source, np.array(splits or [0] * count), images)


def test_unreadable_images_are_returned_with_reasons_and_the_rest_is_decoded_without_gaps():
    red, blue = (encoded(Image.new("RGB", (8, 8), colour)) for colour in ("red", "blue"))
    vector = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"
    source = replace(source_of(b"no image", red, red[:-30], vector, b"", blue), labels=np.array([0, 0, 0, 0, 0, 1]))
    images, unreadable = decoded(source)
    assert [file.name for file in unreadable] == ["0.png", "2.png", "3.png", "4.png"]
    assert unreadable[0].reason == "not an image in a known format"
    assert all(file.reason for file in unreadable)
    assert images.names == ["1.png", "5.png"]
    assert images.labels.tolist() == [0, 1]
    assert images.images[:, 0, 0].tolist() == [RED, [0, 0, 255]]


def test_decoded_images_are_in_the_order_of_their_splits():
    pixels = noise(5, 8, 8, 3)
    images, _ = decoded(source_of(*pixels), splits=[2, 0, 1, 0, 2])
    assert images.names == ["1.png", "3.png", "2.png", "0.png", "4.png"]
    assert images.splits.tolist() == [0, 0, 1, 2, 2]
    assert [images.rows(split) for split in PREPARED_SPLITS] == [slice(0, 2), slice(2, 3), slice(3, 5)]
    assert (images.images == pixels[[1, 3, 2, 0, 4]]).all()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_unreadable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    good, bomb = (encoded(Image.new("RGB", (side, side))) for side in (8, 12))
    _, (unreadable,) = decoded(source_of(good, bomb))
    assert unreadable.name == "1.png"
    assert "144 pixels" in unreadable.reason


def test_pixels_are_resized_like_files():
    pixels = noise(8, 8, 3)
    images, unreadable = decoded(source_of(pixels, encoded(Image.fromarray(pixels))), size=20)
    assert unreadable == []
    assert (images.images[0] == images.images[1]).all()


def test_garbage_in_the_exif_does_not_hide_a_picture():
    content = encoded(Image.new("RGB", (8, 8), "red"), "JPEG", exif=b"Exif\x00\x00garbage that is no TIFF header")
    assert decode_image(content, 8).shape == (8, 8, 3)


def test_a_source_that_lost_files_meanwhile_is_one_sentence():
    source = replace(source_of(noise(8, 8, 3), noise(8, 8, 3)), read=lambda: iter([(0, noise(8, 8, 3))]))
    with pytest.raises(UserError, match="changed while it was read"):
        decoded(source)


def test_results_of_threads_come_in_order_and_few_items_wait_in_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    read = []
    squares = map_in_threads(lambda item: item**2, (read.append(item) or item for item in range(100)))
    assert next(squares) == 0
    assert len(read) <= 6
    assert list(squares) == [item**2 for item in range(1, 100)]


def test_an_error_in_a_thread_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(lambda item: 1 // item, [1, 0]))
