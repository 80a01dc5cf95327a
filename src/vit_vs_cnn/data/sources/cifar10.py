"""The official archives of CIFAR: downloaded where they are missing, checked, read without trusting their pickles."""

import hashlib
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import main_root
from vit_vs_cnn.data.dataset import PREPARED_SPLITS
from vit_vs_cnn.data.sources.download import download_errors, one_download
from vit_vs_cnn.data.sources.source import Source

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = "cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"

_TRAIN = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")

# What numpy's arrays are pickled with.
_ARRAY_PARTS = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}


@dataclass(frozen=True)
class CifarArchive:
    """An official archive: where it is, its checksum, the files of train and test, and the key of the class names."""

    name: str
    url: str
    md5: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    class_names: str


class _ArrayUnpickler(pickle.Unpickler):
    """Reads plain values and numpy arrays, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy") and name in _ARRAY_PARTS:
            return _ARRAY_PARTS[name]
        raise UserError(f"A CIFAR batch asks for {module}.{name}: refused; take the official archive.")


def open_cifar10(path: Path) -> Source:
    """Open CIFAR-10's official archive at `path`, downloaded to there if it is missing.

    Where `path` is the data card (.md), the archive is beside it in the main working tree, once for all runs. The
    official test batch is the test split. Raises UserError if the archive is not the official one or asks for anything
    but arrays and plain values, TransientError if it is missing and cannot be downloaded.
    """
    official = CifarArchive("CIFAR-10", URL, MD5, _TRAIN, ("test_batch",), "batches.meta", "label_names")
    return open_cifar(main_root() / path.with_name(ARCHIVE) if path.suffix == ".md" else path, official)


def open_cifar(path: Path, official: CifarArchive) -> Source:
    """Open an official archive at `path`, downloaded to there if it is missing. Raises as `open_cifar10` does."""
    if not path.exists():
        with one_download(path):
            if not path.exists():
                _download(path, official)
    _check(path, official)
    contents = _read_archive(path, {*official.train, *official.test, official.meta})
    batches = {name: contents[name] for name in (*official.train, *official.test)}
    # CIFAR-100 has coarse labels too.
    labels = [np.asarray(batch.get("labels", batch.get("fine_labels")), np.int64) for batch in batches.values()]
    images = np.concatenate([batch["data"] for batch in batches.values()])
    images = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    is_test = np.arange(len(images)) >= len(images) - sum(len(part) for part in labels[len(official.train) :])
    return Source(
        description=f"{official.name}, the official archive",
        classes=tuple(contents[official.meta][official.class_names]),
        names=tuple(f"{name}/{file}" for name, batch in batches.items() for file in batch["filenames"]),
        labels=np.concatenate(labels),
        splits=np.where(is_test, PREPARED_SPLITS.index("test"), PREPARED_SPLITS.index("train")),
        missing=("val",),
        read=lambda: enumerate(images),
    )


def _read_archive(path: Path, files: set[str]) -> dict[str, dict[str, Any]]:
    contents: dict[str, dict[str, Any]] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file, name = archive.extractfile(member), Path(member.name).name
            if file and name in files:
                # Written by Python 2: latin1 keeps its byte strings, keys as well as pixels, unchanged.
                contents[name] = _ArrayUnpickler(file, encoding="latin1").load()
    return contents


def _check(path: Path, official: CifarArchive) -> None:
    if not path.is_file():
        raise UserError(f"data.path: {path} is a folder: name the archive {ARCHIVE} itself.")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != official.md5:
        raise UserError(
            f"{path}: is not the official {official.name} archive (md5 {found}, expected {official.md5}): "
            f"delete it to have it downloaded, or put a copy of {official.url} there."
        )


def _download(path: Path, official: CifarArchive) -> None:
    # torchvision imports torch: seconds that only a download need spend.
    from torchvision.datasets.utils import download_url

    draft = path.with_name(path.name + ".part")
    remedy = (
        "copy the archive to that path by other means, or choose other images with data.source (folder, table, digits)"
    )
    try:
        with download_errors(f"data.path: {path} is missing and downloading {official.url} failed", remedy):
            download_url(official.url, draft.parent, draft.name, official.md5)
            draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
