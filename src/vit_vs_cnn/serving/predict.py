"""Predictions for image files, one after the other in bounded memory, and the formats that they are printed in."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.core.console import inert, printable
from vit_vs_cnn.data.archive import MAX_FILE_BYTES
from vit_vs_cnn.data.dataset import Decoding
from vit_vs_cnn.data.decode import map_in_threads
from vit_vs_cnn.data.pixels import decode_image, reason_of
from vit_vs_cnn.data.sources.source import Unreadable
from vit_vs_cnn.registry.loading import BATCH, RegisteredModel

TOP = 3

Format = Literal["table", "json", "csv"]


@dataclass(frozen=True)
class Prediction:
    """The `TOP` most probable classes of a file with their probabilities, the most probable first."""

    file: str
    top: tuple[tuple[str, float], ...]

    def as_json(self) -> dict[str, Any]:
        """The prediction as plain values, the same from the command and over HTTP."""
        name, probability = self.top[0]
        top = [{"class": label, "probability": value} for label, value in self.top]
        return {"file": self.file, "class": name, "probability": probability, "top": top}


def top_classes(file: str, probabilities: NDArray[np.float32], classes: Sequence[str]) -> Prediction:
    """The prediction for `file` from its probabilities float32 (K,)."""
    best = np.argsort(-probabilities, kind="stable")[:TOP]
    # float32 has seven significant digits; more would only look exact.
    return Prediction(file, tuple((classes[i], float(f"{probabilities[i]:.7g}")) for i in best))


def image_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files among `paths` and in the folders among them, each folder sorted, without hidden ones."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))


def predict_files(model: RegisteredModel, files: Iterable[Path]) -> Iterator[Prediction | Unreadable]:
    """The prediction of `model` for each file, or why it cannot be read, in their order."""
    decoded = map_in_threads(lambda path: (path, decode_file(path, model.image_size, model.decoding)), files)
    while batch := list(islice(decoded, BATCH)):
        images = [image for _, image in batch if isinstance(image, np.ndarray)]
        rows = iter(model.probabilities(np.stack(images)) if images else ())
        for path, image in batch:
            yield image if isinstance(image, Unreadable) else top_classes(str(path), next(rows), model.classes)


def decode_file(path: Path, size: int, decoding: Decoding) -> NDArray[np.uint8] | Unreadable:
    """The image in a file, uint8 (size, size, 3), or why it cannot be read."""
    try:
        if not path.is_file():
            return Unreadable(str(path), "is not a file" if path.exists() else "does not exist")
        if path.stat().st_size > MAX_FILE_BYTES:
            return Unreadable(str(path), f"more than the {MAX_FILE_BYTES:,} bytes accepted")
        return decode_image(path.read_bytes(), size, decoding)
    # On a damaged file Pillow's readers raise almost anything.
    except Exception as error:
        return Unreadable(str(path), reason_of(error))


class Formatter:
    """Predictions for `classes` as lines of text: an aligned table, JSON lines or CSV."""

    def __init__(self, kind: Format, classes: Sequence[str]) -> None:
        """`header` is None where the format has none."""
        self._kind = kind
        self._width = max(len(printable(name)) for name in ("class", *classes))
        headers = {"table": f"{'class':<{self._width}}  probability  file", "csv": "file,class,probability"}
        self.header = headers.get(kind)

    def line(self, prediction: Prediction) -> str:
        """The prediction on one line."""
        name, probability = prediction.top[0]
        if self._kind == "json":
            return json.dumps(prediction.as_json())
        if self._kind == "csv":
            line = io.StringIO()
            csv.writer(line, lineterminator="").writerow([inert(prediction.file), inert(name), probability])
            return line.getvalue()
        # The file comes last, or the longest name would have to be known before the first line.
        return f"{printable(name):<{self._width}}  {probability:>11.4f}  {printable(prediction.file)}"
