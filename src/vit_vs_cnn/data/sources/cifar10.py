"""CIFAR-10's official archive: found, or downloaded; checked; read without trusting its pickles."""

import hashlib
import http.client
import pickle
import socket
import tarfile
from pathlib import Path
from typing import IO, Any

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
_SIDE = 32
_SILENCE_SECONDS = 60.0

_reconstruct = np.empty(0).__reduce__()[0]
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads plain values and numpy arrays, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise UserError(
                f"A CIFAR-10 batch asks for {module}.{name}: refused; take the official archive from {URL}."
            )
        return _ADMITTED[module, name]


def open_cifar10(path: Path) -> Source:
    """CIFAR-10 from its official archive at `path`, downloaded to there if it is missing.

    Where `path` is the data card (.md), the archive lies beside it in the main working tree, once for all runs. The
    official test batch is the test split. Raises UserError if the archive is not the official one, or is missing and
    cannot be downloaded.
    """
    archive = main_root() / path.with_name(ARCHIVE) if path.suffix == ".md" else path
    if not archive.exists():
        _download(archive)
    _check(archive)
    contents = _read_archive(archive)
    batches = [contents[name] for name in _BATCHES]
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    train = sum(len(batch["labels"]) for batch in batches[:-1])
    return Source(
        description="CIFAR-10, the official archive",
        classes=tuple(contents[_META]["label_names"]),
        names=tuple(
            f"{name}/{file}" for name, batch in zip(_BATCHES, batches, strict=True) for file in batch["filenames"]
        ),
        labels=np.concatenate([np.asarray(batch["labels"], np.int64) for batch in batches]),
        splits=np.where(np.arange(len(images)) < train, PREPARED_SPLITS.index("train"), PREPARED_SPLITS.index("test")),
        missing=("val",),
        read=lambda: enumerate(images),
    )


def read_batch(file: IO[bytes]) -> dict[str, Any]:
    """The dictionary pickled in one file of the archive.

    Raises UserError if the pickle asks for anything but numpy arrays and plain values.
    """
    # Written by Python 2: its byte strings, keys as well as pixels, come through latin1 unchanged.
    values: dict[str, Any] = _ArrayUnpickler(file, encoding="latin1").load()
    return values


def _read_archive(path: Path) -> dict[str, dict[str, Any]]:
    contents = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file, name = archive.extractfile(member), Path(member.name).name
            if file and name in (*_BATCHES, _META):
                contents[name] = read_batch(file)
    return contents


def _check(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"data.path: {path} is a folder: name the archive {ARCHIVE} itself.")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != MD5:
        raise UserError(
            f"{path}: is not the official CIFAR-10 archive (md5 {found}, expected {MD5}): "
            f"delete it to have it downloaded, or put a good copy of {URL} there."
        )


def _download(path: Path) -> None:
    # torchvision brings torch with it, seconds that only a download need spend.
    from torchvision.datasets.utils import download_url

    unfinished = path.with_name(path.name + ".part")
    before = socket.getdefaulttimeout()
    # torchvision sets no timeout: behind a silent firewall it would wait for ever.
    socket.setdefaulttimeout(_SILENCE_SECONDS)
    try:
        download_url(URL, unfinished.parent, unfinished.name, MD5)
        unfinished.rename(path)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise TransientError(
            f"data.path: {path} is missing and downloading {URL} failed ({error}): copy the archive to that path "
            "by other means, or choose other images with data.source (folder, digits)."
        ) from None
    finally:
        socket.setdefaulttimeout(before)
        unfinished.unlink(missing_ok=True)
