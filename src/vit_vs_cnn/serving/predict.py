"""Image files to predictions, one after the other, in bounded memory."""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vit_vs_cnn.data.archive import MAX_FILE_BYTES
from vit_vs_cnn.data.decode import decode_image, reason_of
from vit_vs_cnn.data.sources.source import Unreadable
from vit_vs_cnn.registry.loading import BATCH, RegisteredModel

TOP = 3


@dataclass(frozen=True)
class Prediction:
    """What the model says of a file: its `TOP` most probable classes, the most probable first."""

    file: str
    top: tuple[tuple[str, float], ...]

    def as_json(self) -> dict[str, Any]:
        """The prediction as plain values, the same from the command and over HTTP."""
        name, probability = self.top[0]
        top = [{"class": each, "probability": value} for each, value in self.top]
        return {"file": self.file, "class": name, "probability": probability, "top": top}


def top_classes(file: str, probabilities: NDArray[np.float32], classes: Sequence[str]) -> Prediction:
    """The prediction for `file` from its probabilities float32 (K,)."""
    best = np.argsort(-probabilities, kind="stable")[:TOP]
    # Seven digits say all that float32 holds; more would only look exact.
    return Prediction(file, tuple((classes[i], float(f"{probabilities[i]:.7g}")) for i in best))


def image_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files among `paths` and in the folders among them, each folder sorted; hidden ones are passed over."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))


def predict_files(
    model: RegisteredModel, files: Iterable[Path], read: Callable[[int], object]
) -> Iterator[Prediction | Unreadable]:
    """What `model` says of each file, in their order; `read` is told of files as they have been read."""

    def decode(part: Sequence[Path]) -> list[NDArray[np.uint8] | Unreadable]:
        decoded = [_decode(path, model.image_size) for path in part]
        read(len(part))
        return decoded

    workers = min(os.cpu_count() or 1, 16)
    waiting: deque[tuple[list[Path], Future[list[NDArray[np.uint8] | Unreadable]]]] = deque()
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        # As prepare has it: an image above Pillow's limit of pixels is unreadable.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for part in _parts(iter(files)):
            waiting.append((part, pool.submit(decode, part)))
            if len(waiting) > workers:
                yield from _predicted(model, waiting)
        while waiting:
            yield from _predicted(model, waiting)


def _parts(files: Iterator[Path]) -> Iterator[list[Path]]:
    while part := list(islice(files, BATCH)):
        yield part


def _predicted(
    model: RegisteredModel, waiting: deque[tuple[list[Path], Future[list[NDArray[np.uint8] | Unreadable]]]]
) -> Iterator[Prediction | Unreadable]:
    files, future = waiting.popleft()
    decoded = future.result()
    images = [each for each in decoded if isinstance(each, np.ndarray)]
    rows = iter(model.probabilities(np.stack(images)) if images else ())
    for file, each in zip(files, decoded, strict=True):
        yield each if isinstance(each, Unreadable) else top_classes(str(file), next(rows), model.classes)


def _decode(path: Path, size: int) -> NDArray[np.uint8] | Unreadable:
    try:
        if not path.is_file():
            return Unreadable(str(path), "is not a file" if path.exists() else "does not exist")
        if path.stat().st_size > MAX_FILE_BYTES:
            return Unreadable(str(path), f"more than the {MAX_FILE_BYTES:,} bytes accepted")
        return decode_image(path.read_bytes(), size)
    # On a damaged file Pillow's readers raise almost anything.
    except Exception as error:
        return Unreadable(str(path), reason_of(error))
