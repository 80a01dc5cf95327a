import hashlib
import io
import os
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.sources import cifar10
from vit_vs_cnn.data.sources.cifar10 import open_cifar10

CLASSES = ("airplane", "automobile")
PER_BATCH = 4


def python2_string(value: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(value)) + value


def python2_batch(data: np.ndarray, labels: list[int], names: list[str]) -> bytes:
    """A batch in the opcodes of the official files, which Python 2 wrote: byte strings and numpy's old module name."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        + b"(K\x01"
        + (b"M" + struct.pack("<H", data.shape[0]) + b"M" + struct.pack("<H", data.shape[1]) + b"\x86")
        + b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89"
        + python2_string(data.tobytes())
        + b"tb"
    )
    pairs = {
        b"batch_label": python2_string(b"made up"),
        b"labels": b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e",
        b"data": array,
        b"filenames": b"](" + b"".join(python2_string(name.encode()) for name in names) + b"e",
    }
    return b"\x80\x02}(" + b"".join(python2_string(key) + value for key, value in pairs.items()) + b"u."


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    """Six batches of images, uint8 (6, 4, 3, 32, 32), as the archive stores them: planes of colour."""
    return np.random.default_rng(0).integers(0, 256, (6, PER_BATCH, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def archive(tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small archive of the official layout, its md5 taken for the official one."""
    path = tmp_path / "official" / cifar10.ARCHIVE
    path.parent.mkdir()
    batches = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    files = {
        name: python2_batch(part.reshape(PER_BATCH, -1), [0, 1, 1, 0], [f"{name}_{i}.png" for i in range(PER_BATCH)])
        for name, part in zip(batches, pixels, strict=True)
    }
    files["batches.meta"] = pickle.dumps({"label_names": list(CLASSES)}, protocol=2)
    files["readme.html"] = b"<html>"
    write_archive(path, files)
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(path.read_bytes()).hexdigest())
    return path


@pytest.fixture
def server(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server of the archive on loopback, as what it was asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, *_: object) -> None:
            asked.append(self.path)

    handler = partial(Handler, directory=str(archive.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(cifar10, "URL", f"http://127.0.0.1:{serving.server_port}/{archive.name}")
        yield asked
        serving.shutdown()
        thread.join()


def test_the_official_layout_is_read(archive: Path, pixels: np.ndarray):
    source = open_cifar10(archive)
    images = np.stack([image for _, image in source.read()])
    assert source.classes == CLASSES
    assert (images == pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)).all()
    assert source.labels.tolist() == [0, 1, 1, 0] * 6
    assert source.splits.tolist() == [0] * 5 * PER_BATCH + [2] * PER_BATCH
    assert source.missing == ("val",)
    assert source.names[0] == "data_batch_1/data_batch_1_0.png"


def test_a_wrong_md5_is_one_sentence_and_the_file_stays(archive: Path):
    archive.write_bytes(archive.read_bytes() + b"more")
    with pytest.raises(UserError, match=rf"not the official CIFAR-10 archive \(md5 \w{{32}}, expected {cifar10.MD5}\)"):
        open_cifar10(archive)
    assert archive.exists()


def test_a_folder_is_no_archive(tmp_path: Path):
    with pytest.raises(UserError, match="is a folder: name the archive"):
        open_cifar10(tmp_path)


@pytest.mark.usefixtures("server")
def test_a_missing_archive_is_downloaded_once(tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch):
    wanted = tmp_path / "mine" / "copy.tar.gz"
    assert open_cifar10(wanted).classes == CLASSES
    assert wanted.read_bytes() == archive.read_bytes()
    assert list(wanted.parent.iterdir()) == [wanted]
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:9/none")
    assert open_cifar10(wanted).classes == CLASSES


def test_two_that_miss_the_archive_at_once_download_it_once(tmp_path: Path, server: list[str]):
    open_cifar10(tmp_path / "alone" / "copy.tar.gz")
    asked_by_one, together = len(server), threading.Barrier(2)

    def open_at_once(_: int) -> tuple[str, ...]:
        together.wait()
        return open_cifar10(tmp_path / "shared" / "copy.tar.gz").classes

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(open_at_once, range(2))) == [CLASSES] * 2
    assert len(server) == 2 * asked_by_one


@pytest.mark.usefixtures("server")
def test_a_data_card_stands_for_the_archive_beside_it_in_the_main_working_tree(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cifar10, "main_root", lambda: tmp_path / "main")
    assert open_cifar10(Path("data/raw/cifar10.md")).classes == CLASSES
    assert (tmp_path / "main" / "data/raw" / cifar10.ARCHIVE).read_bytes() == archive.read_bytes()


@pytest.mark.usefixtures("server")
def test_a_download_that_is_not_the_official_archive_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cifar10, "MD5", "0" * 32)
    with pytest.raises(UserError, match="failed"):
        open_cifar10(tmp_path / "mine" / "copy.tar.gz")
    assert list((tmp_path / "mine").iterdir()) == []


def test_no_way_to_download_names_both_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9.*copy the archive to that path.*or choose other images"):
        open_cifar10(tmp_path / "copy.tar.gz")


def test_url_and_md5_are_those_of_torchvision():
    from torchvision.datasets import CIFAR10

    assert (CIFAR10.url, CIFAR10.tgz_md5, CIFAR10.filename) == (cifar10.URL, cifar10.MD5, cifar10.ARCHIVE)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harmed",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int):
    path = write_archive(tmp_path / "a.tar.gz", {"data_batch_1": pickle.dumps({"data": Malicious()}, protocol)})
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"asks for \w+\.system: refused"):
        open_cifar10(path)
    assert list(tmp_path.iterdir()) == [path]
