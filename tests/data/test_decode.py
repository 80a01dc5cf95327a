import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from factories import encoded, noise
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import BY_DEFAULT, PREPARED_SPLITS, Decoding
from vit_vs_cnn.data.decode import DecodedImages, decode_source, map_in_threads
from vit_vs_cnn.data.pixels import in_turn
from vit_vs_cnn.data.sources.source import RawImage, Source, Unreadable

RED = [255, 0, 0]


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


def decoded(
    source: Source, size: int = 8, splits: list[int] | None = None, decoding: Decoding = BY_DEFAULT
) -> tuple[DecodedImages, list[Unreadable]]:
    count = len(source.names)
    images = np.zeros((count, size, size, 3), np.uint8)
    return decode_source(source, np.array(splits or [0] * count), images, decoding)


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


def test_few_bytes_wait_in_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    read = []
    items = (read.append(item) or item for item in range(100))
    lengths = map_in_threads(lambda item: item, items, bytes_of=lambda _: 2**28)
    for done in range(50):
        assert next(lengths) == done
        assert len(read) - done <= 4
    assert list(lengths) == [*range(50, 100)]


def test_large_images_take_turns():
    large = Image.new("L", (12_000, 10_000))
    entered, leave = threading.Event(), threading.Event()

    def second() -> None:
        with in_turn(large):
            entered.set()
            leave.wait(60)

    with in_turn(large):
        thread = threading.Thread(target=second)
        thread.start()
        with in_turn(Image.new("L", (100, 100))):
            assert not entered.wait(0.2)
    assert entered.wait(60)
    leave.set()
    thread.join()


def test_an_error_in_a_thread_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(lambda item: 1 // item, [1, 0]))


def of_levels(*levels: float, dtype: type = np.uint16, size: int = 64) -> bytes:
    """An image file whose pixels have these levels in equal parts."""
    pixels = np.resize(np.array(levels, dtype), (size, size))
    return encoded(Image.fromarray(pixels), "TIFF")


def test_12_bit_images_use_the_range_of_train_whatever_the_other_splits_hold():
    source = source_of(of_levels(100, 2000), of_levels(0, 4000), of_levels(2000, 60_000), of_levels(0, 4000))
    images, unreadable = decoded(source, 64, splits=[0, 0, 1, 2])
    assert unreadable == []
    assert images.decoding.levels == (0, 4000)
    assert [np.unique(image).tolist() for image in images.images] == [[6, 128], [0, 255], [128, 255], [0, 255]]
    (note,) = images.notes
    assert "4 images have more than 8 bits: their levels from 0 to 4,000 become black to white" in note


def test_the_same_image_has_the_same_brightness_in_another_place():
    one, two = (
        decoded(source_of(*files), 64)[0]
        for files in ((of_levels(5, 900), of_levels(0, 4000)), (of_levels(0, 4000), of_levels(5, 900)))
    )
    assert one.decoding == two.decoding
    assert (one.images == two.images[::-1]).all()


def test_a_few_dead_pixels_do_not_darken_all_images():
    pixels = np.resize(np.array([0, 4000], np.uint16), (256, 256))
    pixels[0, :10] = 65535
    images, _ = decoded(source_of(encoded(Image.fromarray(pixels))), 256)
    assert images.decoding.levels == (0, 4000)


@pytest.mark.parametrize(("dtype", "levels"), [(np.float32, (-3.5, 8.0)), (np.int32, (-70_000, 90_000))])
def test_float_and_32_bit_images_are_read(dtype: type, levels: tuple[float, float]):
    images, unreadable = decoded(source_of(of_levels(*levels, dtype=dtype)), 64)
    assert unreadable == []
    assert images.decoding.levels == levels
    assert np.unique(images.images).tolist() == [0, 255]


def test_a_given_bit_depth_is_used_and_the_source_read_once():
    reads = []
    source = source_of(of_levels(0, 2048, 4095))

    def read() -> Iterator[tuple[int, RawImage]]:
        reads.append(1)
        return source.read()

    given, _ = decoded(replace(source, read=read), 64, decoding=Decoding(levels=(0, 4095)))
    assert (len(reads), given.decoding.levels, given.notes) == (1, (0, 4095), ())
    assert np.unique(given.images).tolist() == [0, 128, 255]
    decoded(replace(source, read=read), 64)
    assert len(reads) == 3, "a second time, to scale"
    decoded(replace(source_of(*noise(3, 8, 8, 3)), read=lambda: (reads.append(1), enumerate(noise(3, 8, 8, 3)))[1]))
    assert len(reads) == 4, "8 bits have no range to be found"


def test_levels_that_do_not_fit_the_given_bit_depth_are_said():
    (above,) = decoded(source_of(of_levels(0, 4096)), decoding=Decoding(levels=(0, 4095)))[0].notes
    assert (
        above == "1 images have levels above the 4,095 that data.bit_depth allows, up to 4,096: they are white there."
    )
    (dark,) = decoded(source_of(of_levels(0, 4095)), decoding=Decoding(levels=(0, 65535)))[0].notes
    assert dark.startswith("No image has a level above 4,095 of the 65,535 that data.bit_depth allows")


def test_8_bit_and_16_bit_images_in_one_set_are_said():
    images, _ = decoded(source_of(of_levels(0, 4000), encoded(Image.new("L", (8, 8), 77))), 64)
    assert images.images[1].min() == 77, "8 bits stay as they are"
    assert "1 of 2 images have more than 8 bits and the others have not" in images.notes[1]


def test_without_such_images_in_train_16_bits_are_scaled_by_65535_and_floats_are_unreadable():
    source = source_of(encoded(Image.new("L", (8, 8), 77)), of_levels(0, 65535), of_levels(0.5, dtype=np.float32))
    images, (unreadable,) = decoded(source, 64, splits=[0, 1, 2])
    assert images.decoding.levels is None
    assert np.unique(images.images[1]).tolist() == [0, 255]
    assert "32-bit pixels, whose range is not known" in unreadable.reason
    assert images.notes[0].startswith("No training image has more than 8 bits")


def test_the_upper_byte_of_16_bits_for_each_colour_is_said_to_be_all_that_is_read():
    # Pillow writes no such file: the header of a PNG of 2×2 pixels of 16-bit RGB, by hand.
    images, _ = decoded(source_of(png_of_16_bit_colours(2)))
    assert "1 images have 16 bits for each colour, of which the upper 8 are read" in images.notes[0]


def png_of_16_bit_colours(side: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)
    rows = (b"\0" + b"\x0f\xff" * 3 * side) * side
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_damaged_16_bit_image_is_unreadable_and_the_others_are_scaled():
    images, (unreadable,) = decoded(source_of(of_levels(0, 4000), of_levels(0, 4000)[:-5000]), 64)
    assert unreadable.name == "1.png"
    assert images.names == ["0.png"]
    assert np.unique(images.images).tolist() == [0, 255]


def test_how_much_the_crop_discards_is_said_beyond_a_twentieth():
    wide, square = (encoded(Image.new("RGB", size)) for size in ((40, 30), (30, 30)))
    (note,) = decoded(source_of(wide, square))[0].notes
    assert "discards 12% of the area on average, 25% of 0.png; pad and stretch keep all" in note
    assert decoded(source_of(wide, *[square] * 4))[0].notes == ()
    assert decoded(source_of(wide), decoding=Decoding(fit="pad"))[0].notes == ()
