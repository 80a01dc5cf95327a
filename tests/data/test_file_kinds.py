import io

import pytest
from PIL import Image

from vit_vs_cnn.data.file_kinds import HEAD_BYTES, has_image_suffix, is_image_head

FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_that_is_decoded_is_known_by_its_first_bytes(form: str):
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, form)
    assert is_image_head(content.getvalue()[:HEAD_BYTES])


@pytest.mark.parametrize("form", FORMATS)
def test_the_suffixes_of_every_format_that_is_decoded_are_known(form: str):
    suffixes = [suffix for suffix, name in Image.registered_extensions().items() if name == form]
    assert [suffix for suffix in suffixes if not has_image_suffix(f"a{suffix.upper()}")] == []


@pytest.mark.parametrize("head", [b"", b"P", b"P5", b"BM", b"BMW is a maker of cars", b"Patient 1", b"<?xml"])
def test_texts_are_no_images(head: bytes):
    assert not is_image_head(head)


def test_a_dicom_file_is_an_image_that_cannot_be_read_yet():
    assert is_image_head(bytes(128) + b"DICM")


@pytest.mark.parametrize("name", ["README.txt", "README", "jpg", "a.jpg.txt", "a.csv", ""])
def test_other_suffixes_are_odd(name: str):
    assert not has_image_suffix(name)
