import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pillow_heif import register_heif_opener

from factories import encoded, noise
from vit_vs_cnn.data.dataset import Decoding
from vit_vs_cnn.data.pixels import decode_image, reason_of

RED, WHITE, BLACK = [255, 0, 0], [255, 255, 255], [0, 0, 0]


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


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("garbage", [b"garbage that is no TIFF header", b"II*\x00"], ids=["no_header", "half_a_header"])
def test_garbage_in_the_exif_does_not_hide_a_picture(format_: str, garbage: bytes):
    content = encoded(Image.new("RGB", (8, 8), "red"), format_, exif=b"Exif\x00\x00" + garbage)
    assert np.abs(decode_image(content, 8).astype(int) - RED).max() < 10


def test_garbage_in_the_exif_of_an_old_png_does_not_hide_a_picture():
    text = PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n4\nno digits of a hexadecimal number")
    content = encoded(Image.new("RGB", (8, 8), "red"), pnginfo=text)
    assert (decode_image(content, 8) == RED).all()


@pytest.mark.parametrize(("tag", "kind"), [(0x100, 7), (0x110, 11), (0x11A, 7)], ids=["width", "model", "resolution"])
def test_garbage_in_another_tag_does_not_keep_a_picture_from_being_turned(tag: int, kind: int):
    image, exif = Image.fromarray(noise(16, 16, 3)), Image.Exif()
    exif[0x0112] = 6
    # Two tags: one whose value is of a kind that it never has, and the orientation.
    entries = struct.pack("<HHLL", tag, kind, 4 if kind == 7 else 1, 0) + struct.pack("<HHLHH", 0x0112, 3, 1, 6, 0)
    odd = struct.pack("<2sHLH", b"II", 42, 8, 2) + entries + bytes(4)
    turned = decode_image(encoded(image, exif=exif), 16)
    assert (decode_image(encoded(image, exif=b"Exif\x00\x00" + odd), 16) == turned).all()
    assert (turned != np.asarray(image)).any()


def red_with_blue_sides(width: int, height: int) -> Image.Image:
    """Red in the middle third along the longer side, blue on both sides of it."""
    image = Image.new("RGB", (width, height), "blue")
    if width > height:
        image.paste("red", (width // 3, 0, 2 * width // 3, height))
    else:
        image.paste("red", (0, height // 3, width, 2 * height // 3))
    return image


@pytest.mark.parametrize("upright", [True, False])
def test_crop_loses_the_sides_pad_keeps_them_between_bars_stretch_keeps_them_distorted(upright: bool):
    content = encoded(red_with_blue_sides(*((60, 180) if upright else (180, 60))))

    def along(fit: Literal["crop", "pad", "stretch"]) -> list[list[int]]:
        pixels = decode_image(content, 90, Decoding(fit=fit))
        line = pixels[:, 45] if upright else pixels[45]
        return [line[place].tolist() for place in (5, 45, 84)]

    blue = [0, 0, 255]
    assert along("crop") == [RED, RED, RED]
    assert along("pad") == along("stretch") == [blue, RED, blue]
    padded, stretched = (decode_image(content, 90, Decoding(fit=fit)) for fit in ("pad", "stretch"))
    across, whole = (padded[45], stretched[45]) if upright else (padded[:, 45], stretched[:, 45])
    assert [across[place].tolist() for place in (5, 45, 84)] == [BLACK, RED, BLACK]
    assert (whole == RED).all()


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 90), height=st.integers(1, 90), size=st.sampled_from([8, 17, 32]))
def test_padding_keeps_the_shape_of_what_is_shown(width: int, height: int, size: int):
    shown = decode_image(encoded(Image.new("L", (width, height), 255)), size, Decoding(fit="pad"))[..., 0] == 255
    seen_height, seen_width = shown.any(axis=1).sum(), shown.any(axis=0).sum()
    assert shown.sum() == seen_height * seen_width
    assert max(seen_height, seen_width) == size
    assert abs(seen_width - size * width / max(width, height)) < 1
    assert abs(seen_height - size * height / max(width, height)) < 1


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_a_line_of_pixels_needs_little_memory_however_it_is_fitted(fit: Literal["pad", "stretch"]):
    content = encoded(Image.new("RGB", (60_000, 1), "red"))
    assert decode_image(content, 64, Decoding(fit=fit)).shape == (64, 64, 3)


def test_grey_is_that_of_pillow_in_three_equal_channels():
    image = Image.fromarray(noise(16, 16, 3))
    decoded = decode_image(encoded(image), 16, Decoding(channels="grey"))
    assert (decoded == np.asarray(image.convert("L"))[..., None]).all()


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_12_bits_in_a_16_bit_file_use_all_of_the_8(format_: str):
    levels = np.array([[0, 1024], [2048, 4095]], np.uint16)
    decoded = decode_image(encoded(Image.fromarray(levels), format_), 2, Decoding(levels=(0, 4095)))
    assert decoded[..., 0].tolist() == [[0, 64], [128, 255]]
    assert decode_image(encoded(Image.fromarray(levels), format_), 2)[..., 0].max() == 16, "almost black"


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_32_bits_are_scaled_by_the_range_and_cut_off_beyond_it(dtype: type):
    levels = np.array([[-70_000, -100], [0, 70_000]], dtype)
    decoded = decode_image(encoded(Image.fromarray(levels), "TIFF"), 2, Decoding(levels=(-100.0, 155.0)))
    assert decoded[..., 0].tolist() == [[0, 0], [100, 255]]


def test_pixels_without_a_value_are_black():
    levels = np.array([[np.nan, np.inf], [-np.inf, 0.5]], np.float32)
    decoded = decode_image(encoded(Image.fromarray(levels), "TIFF"), 2, Decoding(levels=(0.0, 1.0)))
    assert decoded[..., 0].tolist() == [[0, 255], [0, 128]]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_16_bits_from_0_to_65535_are_as_without_a_range(seed: int):
    levels = np.random.default_rng(seed).integers(0, 65536, (8, 8)).astype(np.uint16)
    content = encoded(Image.fromarray(levels))
    expected = np.round(levels / 257).astype(np.uint8)
    assert (decode_image(content, 8)[..., 0] == expected).all()
    assert (decode_image(content, 8, Decoding(levels=(0, 65535)))[..., 0] == expected).all()


def test_8_bits_are_not_scaled_by_a_range():
    pixels = noise(16, 16, 3)
    assert (decode_image(encoded(Image.fromarray(pixels)), 16, Decoding(levels=(0, 4095))) == pixels).all()


def heic(image: Image.Image, **options: object) -> bytes:
    register_heif_opener()
    return encoded(image, "HEIF", quality=95, **options)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photograph_of_an_iphone_is_read_and_turned_upright_once(orientation: int):
    stored = red_with_blue_sides(180, 60)
    stored.paste("white", (0, 0, 60, 30))
    exif = Image.Exif()
    exif[0x0112] = orientation
    one, other = (
        decode_image(content, 60, Decoding(fit="pad")).astype(int)
        for content in (heic(stored, exif=exif.tobytes()), encoded(stored, "JPEG", quality=95, exif=exif))
    )
    assert np.abs(one - other).mean() < 5


def test_the_image_in_a_heic_file_is_read_and_not_its_thumbnail():
    large = heic(Image.fromarray(noise(256, 256, 3)), thumbnails=[128])
    plain = heic(Image.fromarray(noise(256, 256, 3)))
    assert len(large) > len(plain)
    assert (decode_image(large, 16) == decode_image(plain, 16)).all()


def test_a_damaged_heic_has_a_reason():
    with pytest.raises(Exception) as error:  # noqa: PT011 - Pillow's readers raise almost anything
        decode_image(heic(Image.new("RGB", (64, 64), "red"))[:-40], 8)
    assert reason_of(error.value)


def test_without_pillow_heif_the_sentence_names_the_extra():
    code = """
    import sys
    sys.modules["pillow_heif"] = None
    from vit_vs_cnn.data.pixels import decode_image, reason_of
    for content in (sys.stdin.buffer.read(), b"no image"):
        try:
            decode_image(content, 8)
        except Exception as error:
            print(reason_of(error))
    """
    content = heic(Image.new("RGB", (64, 64), "red"))
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], input=content, capture_output=True, check=True
    )
    assert ended.stdout.decode().splitlines() == [
        "HEIC needs pillow-heif: pip install 'vit-vs-cnn[heic]'",
        "not an image in a known format",
    ]
