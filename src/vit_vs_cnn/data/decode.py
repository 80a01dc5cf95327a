"""From encoded files of any mode and size to square uint8 RGB pixels."""

import io
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.sources.source import RawImage, Source, Unreadable

# Raster formats decoded by Pillow itself. Not among them: EPS, which would run Ghostscript on the user's file.
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
_BATCH_IMAGES = 128
_BATCH_BYTES = 8 * 2**20
_MOST_WORKERS = 16

_Failure = tuple[int, str]


def decode_image(content: bytes, size: int) -> NDArray[np.uint8]:
    """DecodedImages uint8 (size, size, 3) of an encoded image; one that has this size already keeps its pixels exactly.

    Turned upright as EXIF says; transparency over white; 16 bits scaled to 8; the centre square, resized with
    antialiasing. Raises whatever Pillow raises on a file that it cannot read, ValueError on 32-bit pixels.
    """
    with Image.open(io.BytesIO(content), formats=_known_formats()) as image:
        # Lets libjpeg skip most of the work on a photograph many times too large.
        image.draft(None, (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(_square(_rgb(image), size))


def decode_into(images: NDArray[np.uint8], source: Source, rows: NDArray[np.int64]) -> list[Unreadable]:
    """Decode all images of `source`, the one at position i into `images[rows[i]]`; return those that cannot be.

    `images` are uint8 (N, S, S, 3); the rows of unreadable ones are left as they are. Raises UserError if the source no
    longer holds what it listed.
    """

    def decode(batch: Sequence[tuple[int, RawImage]]) -> list[_Failure]:
        failures = []
        for position, image in batch:
            try:
                images[rows[position]] = _decode(image, images.shape[1])
            # On a damaged file Pillow's readers raise almost anything; the reason is kept and reported.
            except Exception as error:
                failures.append((position, reason_of(error)))
        bar.update(len(batch))
        return failures

    # Threads, not processes: Pillow decodes without the interpreter lock, and nothing has to be copied between them.
    workers = min(os.cpu_count() or 1, _MOST_WORKERS)
    waiting: deque[Future[list[_Failure]]] = deque()
    failures: list[_Failure] = []
    submitted = 0
    with (
        warnings.catch_warnings(),
        tqdm(total=len(rows), desc="decoding", unit=" images", **bar_options()) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        # An image above Pillow's limit of pixels is unreadable here. The filter counts for all threads: set once.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for batch in _batches(source.read()):
            submitted += len(batch)
            waiting.append(pool.submit(decode, batch))
            if len(waiting) > 2 * workers:
                failures += waiting.popleft().result()
        for future in waiting:
            failures += future.result()
    if submitted != len(rows):
        raise UserError(f"{source.description}: changed while it was read: run the stage again.")
    return [Unreadable(source.names[position], reason) for position, reason in sorted(failures)]


def reason_of(error: Exception) -> str:
    """Why a file could not be decoded, from what `decode_image` raised."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    return " ".join(str(error).split()) or type(error).__name__


def _batches(images: Iterable[tuple[int, RawImage]]) -> Iterator[list[tuple[int, RawImage]]]:
    batch: list[tuple[int, RawImage]] = []
    volume = 0
    for position, image in images:
        batch.append((position, image))
        volume += len(image) if isinstance(image, bytes) else image.nbytes
        if len(batch) == _BATCH_IMAGES or volume >= _BATCH_BYTES:
            yield batch
            batch, volume = [], 0
    if batch:
        yield batch


def _decode(image: RawImage, size: int) -> NDArray[np.uint8]:
    return decode_image(image, size) if isinstance(image, bytes) else np.asarray(_square(Image.fromarray(image), size))


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits: Pillow's own conversion would clip at 255."""
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise ValueError("32-bit pixels, whose range is not known: save it with 8 or 16 bits")
    return Image.fromarray(((levels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))


def _square(image: Image.Image, size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    # Cutting the square first is the same as cutting it after, and an image 1 pixel high never becomes a huge one.
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
