"""CIFAR-10's official archive: downloaded where it is missing, checked, read without trusting its pickles."""

import hashlib
import http.client
import pickle
import socket
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from vit_vs_cnn.core.errors import TransientError, UserError
from vit_vs_cnn.core.paths import main_root
from vit_vs_cnn.data.dataset import PREPARED_SPLITS
from vit_vs_cnn.data.sources.source import Source

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = "cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"

_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
_META = "batches.meta"
_TIMEOUT_SECONDS = 60.0

# What numpy's arrays are pickled with.
_ARRAY_PARTS = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads plain values and numpy arrays, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy") and name in _ARRAY_PARTS:
            return _ARRAY_PARTS[name]
        raise UserError(f"A CIFAR-10 batch asks for {module}.{name}: refused; take the official archive from {URL}.")


def open_cifar10(path: Path) -> Source:
    """Open CIFAR-10's official archive at `path`, downloaded to there if it is missing.

    Where `path` is the data card (.md), the archive is beside it in the main working tree, once for all runs. The
    official test batch is the test split. Raises UserError if the archive is not the official one or asks for anything
    but arrays and plain values, TransientError if it is missing and cannot be downloaded.
    """
    archive = main_root() / path.with_name(ARCHIVE) if path.suffix == ".md" else path
    if not archive.exists():
        _download(archive)
    _check(archive)
    contents = _read_archive(archive)
    batches = {name: contents[name] for name in _BATCHES}
    images = np.concatenate([batch["data"] for batch in batches.values()])
    images = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    is_test = np.arange(len(images)) >= len(images) - len(contents["test_batch"]["labels"])
    return Source(
        description="CIFAR-10, the official archive",
        classes=tuple(contents[_META]["label_names"]),
        names=tuple(f"{name}/{file}" for name, batch in batches.items() for file in batch["filenames"]),
        labels=np.concatenate([np.asarray(batch["labels"], np.int64) for batch in batches.values()]),
        splits=np.where(is_test, PREPARED_SPLITS.index("test"), PREPARED_SPLITS.index("train")),
        missing=("val",),
        read=lambda: enumerate(images),
    )


def _read_archive(path: Path) -> dict[str, dict[str, Any]]:
    contents: dict[str, dict[str, Any]] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file, name = archive.extractfile(member), Path(member.name).name
            if file and name in (*_BATCHES, _META):
                # Written by Python 2: latin1 keeps its byte strings, keys as well as pixels, unchanged.
                contents[name] = _ArrayUnpickler(file, encoding="latin1").load()
    return contents


def _check(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"data.path: {path} is a folder: name the archive {ARCHIVE} itself.")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != MD5:
        raise UserError(
            f"{path}: is not the official CIFAR-10 archive (md5 {found}, expected {MD5}): "
            f"delete it to have it downloaded, or put a copy of {URL} there."
        )


def _download(path: Path) -> None:
    # torchvision imports torch: seconds that only a download need spend.
    from torchvision.datasets.utils import download_url

    draft = path.with_name(path.name + ".part")
    previous = socket.getdefaulttimeout()
    # torchvision sets no timeout: behind a silent firewall it would wait for ever.
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        download_url(URL, draft.parent, draft.name, MD5)
        draft.rename(path)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise TransientError(
            f"data.path: {path} is missing and downloading {URL} failed ({error}): copy the archive to that path "
            "by other means, or choose other images with data.source (folder, digits)."
        ) from None
    finally:
        socket.setdefaulttimeout(previous)
        draft.unlink(missing_ok=True)
