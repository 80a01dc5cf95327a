"""Data in an object store, read from a server with S3's protocol on loopback."""

import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image

from harness.object_store import BUCKET, allow, break_off, client_options, downloads, object_store, silent_store
from vit_vs_cnn.config.load import parse_data_settings
from vit_vs_cnn.core.errors import TransientError, UserError
from vit_vs_cnn.data import object_store as module
from vit_vs_cnn.data.object_store import local_copy
from vit_vs_cnn.data.prepare import open_source
from vit_vs_cnn.orchestration.prefect_server import free_port

BLOCK = module._BLOCK_BYTES


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    with object_store() as found:
        yield found


@pytest.fixture
def store(variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of an empty bucket; the environment leads to it, and copies are kept in a folder of the test."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VIT_VS_CNN_STATE", str(tmp_path / "state"))
    client = boto3.client("s3", **client_options(variables))
    for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=found["Key"])
    allow(variables, 10**9)
    return client


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(file, "png")
    return file.getvalue()


def put(store: Any, key: str, content: bytes) -> None:
    store.put_object(Bucket=BUCKET, Key=key, Body=content)


def test_a_folder_of_objects_is_a_source_like_a_folder_here(store: Any) -> None:
    for name in ("pets/cat/1.png", "pets/cat/2.png", "pets/dog/3.png", "others/bird/4.png"):
        put(store, name, png(len(name)))
    put(store, "pets/", b"")  # what some programs make to show a folder
    settings = parse_data_settings({"source": "folder", "name": "pets", "path": f"s3://{BUCKET}/pets"}, ())
    source = open_source(settings)
    assert sorted(source.names) == ["cat/1.png", "cat/2.png", "dog/3.png"]
    assert source.classes == ("cat", "dog")


def test_only_what_changed_is_downloaded_again_and_what_is_gone_is_removed(
    store: Any, variables: dict[str, str]
) -> None:
    for name in ("a.png", "b.png", "c/d.png"):
        put(store, f"pets/{name}", png(1))
    url = f"s3://{BUCKET}/pets"
    assert local_copy(url) == local_copy(url)
    put(store, "pets/b.png", png(200))
    store.delete_object(Bucket=BUCKET, Key="pets/a.png")
    downloads(variables)
    copy = local_copy(url)
    assert [line.split()[0] for line in downloads(variables)] == [f"/{BUCKET}/pets/b.png"]
    files = {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert files == {"b.png": png(200), "c/d.png": png(1)}
    (copy / "b.png").write_bytes(b"")
    assert (local_copy(url) / "b.png").read_bytes() == png(200)


def test_an_interrupted_download_continues_where_it_stopped(store: Any, variables: dict[str, str]) -> None:
    content = np.random.default_rng(0).bytes(3 * BLOCK + 5)
    put(store, "large.zip", content)
    url = f"s3://{BUCKET}/large.zip"
    allow(variables, 2)
    with pytest.raises(TransientError, match=r"the store cannot be read \(.*\); run the same command again .*\.$"):
        local_copy(url)
    allow(variables, 10**9)
    assert local_copy(url).read_bytes() == content
    ranges = [line.split("bytes=")[1].split("-")[0] for line in downloads(variables)]
    assert ranges == [str(2 * BLOCK), str(3 * BLOCK)]


def test_an_answer_that_breaks_off_is_asked_for_again_and_then_one_sentence(
    store: Any, variables: dict[str, str]
) -> None:
    put(store, "large.zip", bytes(1_000))
    url = f"s3://{BUCKET}/large.zip"
    break_off(variables, 3)
    with pytest.raises(TransientError, match=r"the store cannot be read \(.*\); run the same command again .*\.$"):
        local_copy(url)
    break_off(variables, 2)
    assert local_copy(url).read_bytes() == bytes(1_000)


def test_a_part_of_another_version_is_not_continued(store: Any, variables: dict[str, str]) -> None:
    put(store, "large.zip", bytes(2 * BLOCK))
    url = f"s3://{BUCKET}/large.zip"
    allow(variables, 1)
    with pytest.raises(TransientError):
        local_copy(url)
    allow(variables, 10**9)
    put(store, "large.zip", b"\1" * 2 * BLOCK)
    copy = local_copy(url)
    assert copy.read_bytes() == b"\1" * 2 * BLOCK
    assert [path.name for path in copy.parent.iterdir()] == ["large.zip"]


def test_an_archive_is_read_as_one(store: Any) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("cat/1.png", "dog/2.png"):
            archive.writestr(name, png(3))
    put(store, "data/pets.zip", file.getvalue())
    settings = parse_data_settings({"source": "folder", "name": "pets", "path": f"s3://{BUCKET}/data/pets.zip"}, ())
    assert open_source(settings).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("change", "url", "sentence"),
    [
        ({}, "s3://no-such-bucket/pets", r"data\.path: s3://no-such-bucket/pets: no such bucket or object \("),
        ({}, f"s3://{BUCKET}/nothing", r"no such bucket or object \(there is nothing at s3://vit-vs-cnn/nothing\)\.$"),
        ({"AWS_ACCESS_KEY_ID": "other"}, f"s3://{BUCKET}/pets", r"the store refuses this key \("),
        ({"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}, f"s3://{BUCKET}/pets", "the store cannot be read"),
    ],
)
def test_what_the_store_refuses_is_one_sentence(
    store: Any, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], url: str, sentence: str
) -> None:
    put(store, "pets/cat/1.png", png(1))
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=sentence) as caught:
        local_copy(url)
    assert len(str(caught.value).splitlines()) == 1
    assert isinstance(caught.value, TransientError) is ("AWS_ENDPOINT_URL" in change)


def test_a_silent_store_is_one_sentence_after_the_attempts_of_one_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"connect_timeout": 0.2, "read_timeout": 0.2, "retries": {"total_max_attempts": 2}}
    monkeypatch.setattr(module, "_LIMITS", limits)
    monkeypatch.setenv("VIT_VS_CNN_STATE", str(tmp_path / "state"))
    with silent_store() as (found, connections):
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(
            TransientError, match=r"^data\.path: s3://b/pets: the store cannot be read \(.*\); run the same"
        ):
            local_copy("s3://b/pets")
        assert connections() == 2


def test_an_object_that_is_replaced_while_it_is_downloaded_is_not_mixed(
    store: Any, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = b"\1" * 2 * BLOCK, b"\2" * 2 * BLOCK
    put(store, "large.zip", before)
    monkeypatch.setattr(module, "_LIMITS", {"retries": {"total_max_attempts": 1}})
    url = f"s3://{BUCKET}/large.zip"
    allow(variables, 1)
    with pytest.raises(TransientError):
        local_copy(url)
    allow(variables, 10**9)
    # The free space is asked for between the listing and the download.
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: (put(store, "large.zip", after), usage(folder))[1])
    with pytest.raises(TransientError, match=r"large\.zip was replaced while it was downloaded: start again\.$"):
        local_copy(url)
    copy = local_copy(url)
    assert copy.read_bytes() == after
    assert [path.name for path in copy.parent.iterdir()] == ["large.zip"]


def test_without_credentials_it_says_which_variables_to_set(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UserError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"):
        local_copy(f"s3://{BUCKET}/pets")
