"""From the encoded files of a source to square uint8 RGB pixels, in one pass, or two where a range has to be found."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import BY_DEFAULT, PREPARED_SPLITS, Decoding, SplitName
from vit_vs_cnn.data.levels import find_range, highest_level, is_deep, sample_levels
from vit_vs_cnn.data.notes import Survey, pixel_notes
from vit_vs_cnn.data.pixels import in_turn, open_image, reason_of, square_pixels
from vit_vs_cnn.data.sources.source import RawImage, Source, Unreadable

_BATCH_BYTES = 2**18
_MOST_WORKERS = 16
# Of encoded files that wait for their turn or are being decoded; a single one may be larger.
_MOST_BYTES = 2**29
# A second pass that is over sooner has no bar.
_SECONDS_WITHOUT_BAR = 2.0

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class DecodedImages:
    """N decoded images, those of train first, then val, then test.

    `images` uint8 (N, S, S, 3); `labels` int64 (N,); `splits` int64 (N,), positions in PREPARED_SPLITS; N `names`;
    `positions` int64 (N,) in the source. `decoding` is how they were decoded, and `notes` are sentences for people on
    that.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    splits: NDArray[np.int64]
    names: Sequence[str]
    positions: NDArray[np.int64]
    decoding: Decoding = BY_DEFAULT
    notes: tuple[str, ...] = ()

    def rows(self, split: SplitName) -> slice:
        """The rows of one split."""
        code = PREPARED_SPLITS.index(split)
        first, last = np.searchsorted(self.splits, [code, code + 1])
        return slice(int(first), int(last))


def decode_source(
    source: Source, splits: NDArray[np.int64], images: NDArray[np.uint8], decoding: Decoding = BY_DEFAULT
) -> tuple[DecodedImages, list[Unreadable]]:
    """Decode all images of `source` into the array `images`, uint8 (N, S, S, 3), in the order of their `splits` (N,).

    Where `decoding` has no levels and images have more than 8 bits, the levels of those in train are sampled in the
    first pass, and these images are decoded in a second one. Returns the images that could be decoded, in a part of
    `images`, and the others with the reason. Raises UserError if the source does not hold what it listed.
    """
    order = np.argsort(splits, kind="stable")
    reader = _Reader(source, images, np.argsort(order), splits == PREPARED_SPLITS.index("train"))
    reader.decode_all(decoding)
    used = decoding
    if decoding.levels is None and reader.survey.deep.any():
        used = decoding.model_copy(update={"levels": find_range(reader.samples.values())})
        reader.decode_deep(used)
    failures = reader.failures
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
        decoding=used,
        notes=pixel_notes(reader.survey, decoding, used, source.names),
    )
    return decoded, [Unreadable(source.names[position], failures[position]) for position in sorted(failures)]


class _Reader:
    """Decodes the images of a source, each into its row of an array, and remembers what it saw.

    `row_of` int64 (N,) and `in_train` bool (N,) are in the order of the source. `failures` are reasons and `samples`
    levels of images of more than 8 bits in train, both by position in the source.
    """

    def __init__(
        self, source: Source, images: NDArray[np.uint8], row_of: NDArray[np.int64], in_train: NDArray[np.bool_]
    ) -> None:
        self.survey = Survey.of(len(row_of))
        self.failures: dict[int, str] = {}
        self.samples: dict[int, NDArray[np.float32]] = {}
        self._source, self._images, self._row_of, self._in_train = source, images, row_of, in_train

    def decode_all(self, decoding: Decoding) -> None:
        """Decode all images but those whose range of levels is still unknown, which are sampled."""
        train_images = int(self._in_train.sum())

        def decode(position: int, image: Image.Image) -> None:
            self.survey.see(position, image)
            if is_deep(image):
                self.survey.deep[position] = True
                with in_turn(image):
                    levels = np.asarray(image)
                    self.survey.highest[position] = highest_level(levels)
                    if decoding.levels is None and self._in_train[position]:
                        self.samples[position] = sample_levels(levels, train_images, position)
                if decoding.levels is None:
                    return
            self._store(position, image, decoding)

        self._read(range(len(self._row_of)), decode, desc="decoding")

    def decode_deep(self, decoding: Decoding) -> None:
        """Decode the images of more than 8 bits, whose range is known by now."""
        deep = np.flatnonzero(self.survey.deep).tolist()
        self._read(
            deep,
            lambda position, image: self._store(position, image, decoding),
            desc="scaling",
            delay=_SECONDS_WITHOUT_BAR,
        )

    def _store(self, position: int, image: Image.Image, decoding: Decoding) -> None:
        self._images[self._row_of[position]] = square_pixels(image, self._images.shape[1], decoding)

    def _read(self, positions: Sequence[int], decode: Callable[[int, Image.Image], None], **bar: Any) -> None:
        wanted = np.zeros(len(self._row_of), np.bool_)
        wanted[positions] = True
        missing = wanted.copy()

        def decode_batch(batch: Sequence[tuple[int, RawImage]]) -> None:
            for position, raw in batch:
                missing[position] = False
                try:
                    with open_image(raw) as image:
                        decode(position, image)
                # On a damaged file Pillow's readers raise almost anything; the reason is kept and reported.
                except Exception as error:
                    self.failures[position] = reason_of(error)

        images = ((position, raw) for position, raw in self._source.read() if wanted[position])
        for _ in map_in_threads(decode_batch, _batches(images, len(positions), **bar), _bytes_of):
            pass
        if missing.any():
            raise UserError(f"{self._source.description}: changed while it was read: run the stage again.")


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], bytes_of: Callable[[Item], int] = lambda _: 0
) -> Iterator[Result]:
    """Apply `function` to each item, in order, with few items at a time in memory, and few `bytes_of` them.

    Threads, not processes: Pillow decodes without the interpreter lock, and nothing has to be copied between them.
    """
    workers = min(os.cpu_count() or 1, _MOST_WORKERS)
    pending: deque[tuple[Future[Result], int]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            pending.append((pool.submit(function, item), bytes_of(item)))
            while len(pending) > 2 * workers or (pending and sum(size for _, size in pending) > _MOST_BYTES):
                yield pending.popleft()[0].result()
        while pending:
            yield pending.popleft()[0].result()


def _batches(images: Iterable[tuple[int, RawImage]], total: int, **bar: Any) -> Iterator[list[tuple[int, RawImage]]]:
    batch: list[tuple[int, RawImage]] = []
    size = 0
    for position, image in tqdm(images, total=total, unit=" images", **bar, **bar_options()):
        batch.append((position, image))
        size += _bytes_of(batch[-1:])
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _bytes_of(batch: Sequence[tuple[int, RawImage]]) -> int:
    return sum(len(image) if isinstance(image, bytes) else image.nbytes for _, image in batch)
