import gzip
import hashlib
import io
import os
import pickle
import socket
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from table_factories import classes_in
from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.core.errors import TransientError, UserError
from vit_vs_cnn.data.prepare import open_source, prepare

Publish = Callable[[str, bytes], tuple[str, str]]
NOWHERE = "http://127.0.0.1:9/"


def settings(path: Path, dataset: str | None) -> DataSettings:
    values = {"source": "torchvision", "name": "small", "path": str(path), "dataset": dataset, "image_size": 8}
    return DataSettings.model_validate(values | {"min_images_per_class": 3})


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG")
    return content.getvalue()


def matlab(**arrays: np.ndarray) -> bytes:
    content = io.BytesIO()
    savemat(content, arrays)
    return content.getvalue()


def packed(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, file in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(file)
            tar.addfile(info, io.BytesIO(file))
    return content.getvalue()


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Publish]:
    """A server on loopback: `publish(name, content)` gives the address of its folder and the content's md5."""
    served = tmp_path / "served"
    served.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def publish(name: str, content: bytes) -> tuple[str, str]:
            (served / name).write_bytes(content)
            return f"http://127.0.0.1:{server.server_port}/", hashlib.md5(content).hexdigest()

        yield publish
        server.shutdown()
        thread.join()


@pytest.fixture
def fashion(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """FashionMNIST with four images for train and two for test; the images, uint8 (6, 28, 28)."""
    from torchvision.datasets import FashionMNIST

    images, labels = noise(6, 28, 28), bytes([9, 0, 3, 0, 3, 9])
    resources = []
    for part, rows in (("train", slice(0, 4)), ("t10k", slice(4, 6))):
        count = rows.stop - rows.start
        pixels = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28) + images[rows].tobytes()
        for name, content in (
            (f"{part}-images-idx3-ubyte.gz", pixels),
            (f"{part}-labels-idx1-ubyte.gz", struct.pack(">4BI", 0, 0, 8, 1, count) + labels[rows]),
        ):
            address, md5 = publish(name, gzip.compress(content))
            resources.append((name, md5))
    monkeypatch.setattr(FashionMNIST, "mirrors", [address])
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    return images


def test_fashion_mnist(tmp_path: Path, fashion: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    from torchvision.datasets import FashionMNIST

    source = open_source(settings(tmp_path / "data", "FashionMNIST"))
    names = ("Ankle boot", "T-shirt/top", "Dress", "T-shirt/top", "Dress", "Ankle boot")
    assert classes_in(source) == list(zip(["train"] * 4 + ["test"] * 2, names, strict=True))
    assert len(source.classes) == 10
    assert source.missing == ("val",)
    assert source.names[4] == "test/00000"
    grey = np.stack([image for _, image in source.read()])
    assert (grey == fashion[..., None]).all()
    monkeypatch.setattr(FashionMNIST, "mirrors", [NOWHERE])
    assert classes_in(open_source(settings(tmp_path / "data", "FashionMNIST"))) == classes_in(source)


def cifar100(publish: Publish, monkeypatch: pytest.MonkeyPatch, train: object, test: object) -> None:
    from torchvision.datasets import CIFAR100

    files = {"train": train, "test": test, "meta": {"fine_label_names": ["apple", "bee"]}}
    # In this protocol bytes are bytes, as they are in the official files; older ones call a codec for them.
    pickles = {f"cifar-100-python/{name}": pickle.dumps(value, protocol=4) for name, value in files.items()}
    archive = packed(pickles)
    address, md5 = publish(CIFAR100.filename, archive)
    monkeypatch.setattr(CIFAR100, "url", address + CIFAR100.filename)
    monkeypatch.setattr(CIFAR100, "tgz_md5", md5)


def test_cifar100(tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch):
    pixels = noise(3, 3, 32, 32)
    train = {"data": pixels[:2].reshape(2, -1), "fine_labels": [1, 0], "filenames": ["x.png", "y.png"]}
    test = {"data": pixels[2:].reshape(1, -1), "fine_labels": [1], "filenames": ["z.png"], "coarse_labels": [0]}
    cifar100(publish, monkeypatch, train, test)
    source = open_source(settings(tmp_path / "data", "CIFAR100"))
    assert classes_in(source) == [("train", "bee"), ("train", "apple"), ("test", "bee")]
    assert source.names == ("train/x.png", "train/y.png", "test/z.png")
    assert (np.stack([image for _, image in source.read()]) == pixels.transpose(0, 2, 3, 1)).all()


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harmed",)


def test_a_cifar_pickle_that_would_run_code_is_refused(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
):
    cifar100(publish, monkeypatch, Malicious(), {})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"asks for \w+\.system: refused"):
        open_source(settings(tmp_path / "data", "CIFAR100"))
    assert not (tmp_path / "harmed").exists()


def test_svhn(tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch):
    from torchvision.datasets import SVHN

    pixels = noise(32, 32, 3, 5)
    split_list = {}
    for split, rows, digits in (("train", slice(0, 3), [10, 5, 7]), ("test", slice(3, 5), [7, 10])):
        name = f"{split}_32x32.mat"
        address, md5 = publish(name, matlab(X=pixels[..., rows], y=np.array(digits, np.uint8)[:, None]))
        split_list[split] = [address + name, name, md5]
    monkeypatch.setattr(SVHN, "split_list", split_list)
    source = open_source(settings(tmp_path / "data", "SVHN"))
    assert classes_in(source) == [("train", "0"), ("train", "5"), ("train", "7"), ("test", "7"), ("test", "0")]
    assert source.missing == ("val",)
    assert (np.stack([image for _, image in source.read()]) == pixels.transpose(3, 0, 1, 2)).all()


def eurosat(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """EuroSAT with ten images of two classes; their files by name."""
    from torchvision.datasets import eurosat

    classes = [name for name in ("Forest", "River") for _ in range(5)]
    files = {f"2750/{name}/{name}_{number}.jpg": jpeg(noise(9, 8 + number, 3)) for number, name in enumerate(classes)}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, file in files.items():
            archive.writestr(name, file)
    address, md5 = publish("EuroSAT.zip", content.getvalue())
    # The address is written in the method: only the function that it calls can be told another one.
    download = eurosat.download_and_extract_archive

    def download_here(_: str, download_root: str, **__: str) -> None:
        download(f"{address}EuroSAT.zip", download_root, md5=md5)

    monkeypatch.setattr(eurosat, "download_and_extract_archive", download_here)
    return files


def test_eurosat(tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch):
    files = eurosat(publish, monkeypatch)
    source = open_source(settings(tmp_path / "data", "EuroSAT"))
    assert source.classes == ("Forest", "River")
    assert source.missing == ("test", "val")
    assert {source.names[position]: image for position, image in source.read()} == {
        f"eurosat/{name}": file for name, file in files.items()
    }
    info, checks = prepare(settings(tmp_path / "data", "EuroSAT"), tmp_path / "out")
    assert info.name == "small"
    assert checks.images == 10


def test_flowers102(tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch):
    from torchvision.datasets import Flowers102

    photographs = [jpeg(noise(10, 9 + number, 3)) for number in range(4)]
    contents = {
        "102flowers.tgz": packed({f"jpg/image_{number:05d}.jpg": file for number, file in enumerate(photographs, 1)}),
        "imagelabels.mat": matlab(labels=np.array([[1, 102, 1, 2]], np.uint8)),
        "setid.mat": matlab(trnid=np.array([[1, 4]]), valid=np.array([[2, 2]]), tstid=np.array([[3, 3]])),
    }
    files = {}
    for key, (name, content) in zip(("image", "label", "setid"), contents.items(), strict=True):
        address, md5 = publish(name, content)
        files[key] = (name, md5)
    monkeypatch.setattr(Flowers102, "_download_url_prefix", address)
    monkeypatch.setattr(Flowers102, "_file_dict", files)
    source = open_source(settings(tmp_path / "data", "Flowers102"))
    assert source.missing == ()
    assert len(source.classes) == 102
    assert classes_in(source) == [
        ("train", "pink primrose"),
        ("train", "hard-leaved pocket orchid"),
        *[("val", "blackberry lily")] * 2,
        *[("test", "pink primrose")] * 2,
    ]
    assert source.names[0] == "flowers-102/jpg/image_00001.jpg"
    assert dict(source.read())[1] == photographs[3]


def test_files_laid_out_by_hand_need_no_download(tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch):
    for name, file in eurosat(publish, monkeypatch).items():
        (tmp_path / "data" / "eurosat" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "eurosat" / name).write_bytes(file)
    (tmp_path / "served" / "EuroSAT.zip").unlink()
    assert len(open_source(settings(tmp_path / "data", "EuroSAT")).names) == 10


def test_two_that_miss_the_files_at_once_download_them_once(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
):
    from torchvision.datasets import eurosat as module

    eurosat(publish, monkeypatch)
    download, downloads, together = module.download_and_extract_archive, [], threading.Barrier(2)

    def counted(address: str, download_root: str, **more: str) -> None:
        downloads.append(download_root)
        download(address, download_root, **more)

    def open_at_once(_: int) -> int:
        together.wait()
        return len(open_source(settings(tmp_path / "data", "EuroSAT")).names)

    monkeypatch.setattr(module, "download_and_extract_archive", counted)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(open_at_once, range(2))) == [10, 10]
    assert len(downloads) == 1


def test_a_download_that_fails_may_be_retried_and_leaves_nothing(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
):
    eurosat(publish, monkeypatch)
    archive = tmp_path / "served" / "EuroSAT.zip"
    content = archive.read_bytes()
    for damaged in (content + b"more", None):
        archive.unlink()
        if damaged:
            archive.write_bytes(damaged)
        with pytest.raises(TransientError, match=r"lacks EuroSAT and the download failed \(.*\): try again, or unpack"):
            open_source(settings(tmp_path / "data", "EuroSAT"))
        assert list((tmp_path / "data").iterdir()) == []
        archive.write_bytes(content)
    assert len(open_source(settings(tmp_path / "data", "EuroSAT")).names) == 10


def test_a_download_that_is_not_whole_any_more_is_named(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
):
    eurosat(publish, monkeypatch)
    (tmp_path / "data" / "EuroSAT").mkdir(parents=True)
    with pytest.raises(UserError, match=r"data/EuroSAT: is not all of EuroSAT: remove it"):
        open_source(settings(tmp_path / "data", "EuroSAT"))


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torchvision.datasets import FashionMNIST

    from vit_vs_cnn.data.sources import download

    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        with pytest.raises(TransientError, match="FashionMNIST and the download failed"):
            open_source(settings(tmp_path / "data", "FashionMNIST"))
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        (None, r"data\.dataset: is missing"),
        ("FashionMINST", "did you mean FashionMNIST"),
        ("eurosat", r"did you mean EuroSAT\?"),
        ("CelebA", "CelebA is no data set of torchvision with one class for each image.*there are CIFAR10"),
        ("ImageFolder", "ImageFolder is no data set"),
        ("Places365", "Places365 has no split train"),
        ("StanfordCars", "StanfordCars: The original URL is broken"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path: Path, dataset: str | None, sentence: str):
    with pytest.raises(UserError, match=sentence):
        open_source(settings(tmp_path, dataset))


def test_a_file_is_no_place_for_downloads(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file: name a folder"):
        open_source(settings(tmp_path / "file", "EuroSAT"))
