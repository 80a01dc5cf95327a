"""From encoded files of any mode and size to square uint8 RGB pixels."""

import io
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, SplitName
from vit_vs_cnn.data.sources.source import RawImage, Source, Unreadable

# Raster formats decoded by Pillow itself. Not among them: EPS, which would run Ghostscript on the user's file.
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
_BATCH_BYTES = 2**18
_MOST_WORKERS = 16

# `decode_image` refuses images above Pillow's limit of pixels; Pillow's own warning would only repeat it.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class DecodedImages:
    """N decoded images, those of train first, then val, then test.

    `images` uint8 (N, S, S, 3); `labels` int64 (N,); `splits` int64 (N,), positions in PREPARED_SPLITS; N `names`;
    `positions` int64 (N,) in the source.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    splits: NDArray[np.int64]
    names: Sequence[str]
    positions: NDArray[np.int64]

    def rows(self, split: SplitName) -> slice:
        """The rows of one split."""
        code = PREPARED_SPLITS.index(split)
        first, last = np.searchsorted(self.splits, [code, code + 1])
        return slice(int(first), int(last))


def decode_source(
    source: Source, splits: NDArray[np.int64], images: NDArray[np.uint8]
) -> tuple[DecodedImages, list[Unreadable]]:
    """Decode all images of `source` into the array `images`, uint8 (N, S, S, 3), in the order of their `splits` (N,).

    Returns the images that could be decoded, in a part of `images`, and the others with the reason. Raises UserError
    if the source does not hold what it listed.
    """
    order = np.argsort(splits, kind="stable")
    row_of = np.argsort(order)
    seen = np.zeros(len(order), np.bool_)
    failures: dict[int, str] = {}

    def decode(batch: Sequence[tuple[int, RawImage]]) -> None:
        for position, image in batch:
            seen[position] = True
            try:
                images[row_of[position]] = _decode(image, images.shape[1])
            # On a damaged file Pillow's readers raise almost anything; the reason is kept and reported.
            except Exception as error:
                failures[position] = reason_of(error)

    for _ in map_in_threads(decode, _batches(source.read(), len(order))):
        pass
    if not seen.all():
        raise UserError(f"{source.description}: changed while it was read: run the stage again.")
    kept = np.array([position not in failures for position in order], np.bool_)
    for row, kept_row in enumerate(np.flatnonzero(kept)):
        # A row only ever moves towards the front, onto one that has moved already.
        if row != kept_row:
            images[row] = images[kept_row]
    order = order[kept]
    decoded = DecodedImages(
        images=images[: len(order)],
        labels=source.labels[order],
        splits=splits[order],
        names=[source.names[position] for position in order],
        positions=order,
    )
    return decoded, [Unreadable(source.names[position], failures[position]) for position in sorted(failures)]


def decode_image(content: bytes, size: int) -> NDArray[np.uint8]:
    """Decode an image file to uint8 (size, size, 3); one that has this size already keeps its pixels exactly.

    Turned upright as EXIF says; transparency over white; 16 bits scaled to 8; the centre square, resized with
    antialiasing. Raises whatever Pillow raises on a file that it cannot read, ValueError on 32-bit pixels and on more
    pixels than Pillow's limit.
    """
    with Image.open(io.BytesIO(content), formats=_known_formats()) as image:
        pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
        if limit and pixels > limit:
            raise ValueError(f"{pixels:,} pixels, more than the {limit:,} accepted")
        # Lets libjpeg skip most of the work on a photograph many times too large.
        image.draft(None, (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(_square(_rgb(image), size))


def reason_of(error: Exception) -> str:
    """Why a file could not be decoded, from what `decode_image` raised."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    return " ".join(str(error).split()) or type(error).__name__


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Apply `function` to each item, in order, with few items at a time in memory.

    Threads, not processes: Pillow decodes without the interpreter lock, and nothing has to be copied between them.
    """
    workers = min(os.cpu_count() or 1, _MOST_WORKERS)
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _batches(images: Iterable[tuple[int, RawImage]], total: int) -> Iterator[list[tuple[int, RawImage]]]:
    batch: list[tuple[int, RawImage]] = []
    size = 0
    for position, image in tqdm(images, total=total, desc="decoding", unit=" images", **bar_options()):
        batch.append((position, image))
        size += len(image) if isinstance(image, bytes) else image.nbytes
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
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
    """Scale 16-bit grey to 8 bits: Pillow's own conversion would clip at 255."""
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
