"""One image: from an encoded file of any mode and size to square uint8 RGB pixels."""

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vit_vs_cnn.data.dataset import BY_DEFAULT, Decoding
from vit_vs_cnn.data.file_kinds import HEIC_BRANDS
from vit_vs_cnn.data.levels import is_deep, to_8_bits

# Raster formats decoded by Pillow itself. Not among them: EPS, which would run Ghostscript on the user's file.
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
_HEIF = "HEIF"

# Decoded at the same time by the threads of this process: two images as large as Pillow accepts any.
_MOST_PIXELS_AT_ONCE = 180_000_000
# Fewer need no turn.
_FEW_PIXELS = 2**20
_being_decoded: list[int] = []
_turns = threading.Condition()

# What Pillow raises on garbage where the EXIF should be, and on that in a tag beside the orientation, the image turned.
_BAD_EXIF = (SyntaxError, ValueError, TypeError, AttributeError, struct.error)

# `open_image` refuses images above Pillow's limit of pixels; Pillow's own warning would only repeat it.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def decode_image(content: bytes, size: int, decoding: Decoding = BY_DEFAULT) -> NDArray[np.uint8]:
    """Decode an image file to uint8 (size, size, 3); one that has this size already keeps its pixels exactly.

    Turned upright as EXIF says; transparency over white; more than 8 bits scaled to 8; made square as
    `decoding.fit` says, with antialiasing; three equal channels where `decoding.channels` is grey. Raises whatever
    Pillow raises on a file that it cannot read, ValueError on 32-bit pixels of unknown range, on more pixels than
    Pillow's limit, and on HEIC without pillow-heif.
    """
    with open_image(content) as image:
        return square_pixels(image, size, decoding)


def open_image(raw: bytes | NDArray[np.uint8]) -> Image.Image:
    """Open an image file, or pixels uint8 (H, W, 3), without decoding it; raises what `decode_image` raises."""
    if not isinstance(raw, bytes):
        return Image.fromarray(raw)
    try:
        image = Image.open(io.BytesIO(raw), formats=_known_formats())
    except UnidentifiedImageError:
        if raw[4:8] == b"ftyp" and raw[8:12] in HEIC_BRANDS and _HEIF not in _known_formats():
            raise ValueError("HEIC needs pillow-heif: pip install 'vit-vs-cnn[heic]'") from None
        raise
    pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
    if limit and pixels > limit:
        raise ValueError(f"{pixels:,} pixels, more than the {limit:,} accepted")
    return image


def square_pixels(image: Image.Image, size: int, decoding: Decoding) -> NDArray[np.uint8]:
    """Decode what `open_image` opened, as `decode_image` does."""
    # Lets libjpeg skip most of the work on a photograph many times too large. Of HEIC it would be the thumbnail in the
    # file, which need not show the same.
    if image.format != _HEIF:
        image.draft(None, (2 * size, 2 * size))
    with in_turn(image):
        image.load()
        with suppress(*_BAD_EXIF):
            ImageOps.exif_transpose(image, in_place=True)
        shown = _rgb(to_8_bits(image, decoding.levels) if is_deep(image) else image)
        if decoding.channels == "grey":
            shown = shown.convert("L").convert("RGB")
        return np.asarray(_square(shown, size, decoding))


@contextmanager
def in_turn(image: Image.Image) -> Iterator[None]:
    """Decode an image when few enough pixels are being decoded: large ones would fill the memory together."""
    pixels = min(image.width * image.height, _MOST_PIXELS_AT_ONCE)
    if pixels <= _FEW_PIXELS:
        yield
        return
    with _turns:
        _turns.wait_for(lambda: sum(_being_decoded) + pixels <= _MOST_PIXELS_AT_ONCE)
        _being_decoded.append(pixels)
    try:
        yield
    finally:
        with _turns:
            _being_decoded.remove(pixels)
            _turns.notify_all()


def reason_of(error: Exception) -> str:
    """Why a file could not be decoded, from what `decode_image` raised."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    return " ".join(str(error).split()) or type(error).__name__


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    known = tuple(name for name in _FORMATS if name in Image.OPEN)
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return known
    register_heif_opener()
    return (*known, _HEIF)


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


def _square(image: Image.Image, size: int, decoding: Decoding) -> Image.Image:
    if image.size == (size, size):
        return image
    if decoding.fit == "pad":
        longest = max(image.size)
        width, height = (max(1, round(side * size / longest)) for side in image.size)
        square = Image.new("RGB", (size, size))
        square.paste(_resized(image, width, height), ((size - width) // 2, (size - height) // 2))
        return square
    if decoding.fit == "stretch":
        return _resized(image, size, size)
    # Cutting the square first is the same as cutting it after, and an image 1 pixel high never becomes a huge one.
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return _resized(image, size, size, (left, top, left + side, top + side))


def _resized(image: Image.Image, width: int, height: int, box: tuple[int, int, int, int] | None = None) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
