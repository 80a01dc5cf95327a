"""Data in an object store: a copy of what `data.path` names there, made once and resumed where it broke off."""

import json
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import TransientError, UserError, first_line
from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.core.records import digest_of, write_atomically

if TYPE_CHECKING:
    import s3fs

_SCHEME = "s3://"
_BLOCK_BYTES = 8 * 2**20
# How often the answer for a block may break off before that is an error.
_BROKEN_ANSWERS = 2
# Of many small objects each costs a round trip.
_DOWNLOADS_AT_ONCE = 16
# A store that stays silent is an error after two minutes at most: five attempts of botocore, with pauses between them.
TIME_LIMITS = {"connect_timeout": 10, "read_timeout": 20}
_LIMITS = {**TIME_LIMITS, "retries": {"total_max_attempts": 5}}


@dataclass(frozen=True)
class _Object:
    """An object: its key with the bucket, its size in bytes, and its version (ETag)."""

    key: str
    size: int
    version: str


class _Index:
    """index.jsonl: the version of each object that the copy has whole, by its path there; a line for each download."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._versions: dict[str, str] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            with suppress(json.JSONDecodeError):  # the last line of a process that was killed
                self._versions |= json.loads(line)

    def has(self, place: str, wanted: _Object, target: Path) -> bool:
        is_there = target.is_file() and target.stat().st_size == wanted.size
        return is_there and self._versions.get(place) == wanted.version

    def add(self, place: str, whole: _Object) -> None:
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({place: whole.version}) + "\n")

    def replace(self, objects: Mapping[str, _Object]) -> None:
        write_atomically(self._path, json.dumps({place: each.version for place, each in objects.items()}) + "\n")


def is_in_store(path: str) -> bool:
    """Whether `data.path` is the address of an object store."""
    return path.startswith(_SCHEME)


def local_copy(url: str) -> Path:
    """The file or folder that has what the store has at `url`: one object, or all objects below a prefix.

    What changed is downloaded, what is gone there is removed here. An interrupted download continues where it stopped.
    Raises UserError where there is nothing or the store refuses, TransientError where it cannot be reached.
    """
    folder = downloads_dir() / digest_of(url.encode())[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"), store_errors(f"data.path: {url}"):
        store = _open_store()
        key = url.removeprefix(_SCHEME).rstrip("/")
        found = _objects(store, key)
        if not found:
            raise FileNotFoundError(f"there is nothing at {url}")
        copy = folder / "copy" / PurePosixPath(key).name
        objects = {_place(key, each.key): each for each in found}
        index = _Index(folder / "index.jsonl")
        missing = {place: each for place, each in objects.items() if not index.has(place, each, _target(copy, place))}
        _require_space(folder, sum(each.size for each in missing.values()))
        _download_all(store, copy, missing, index)
        _remove_others(copy.parent, {_target(copy, place) for place in objects})
        index.replace(objects)
    return copy


def require_bucket(path: str, **options: Any) -> None:
    """Raise s3fs's errors unless the store has the bucket of [s3://]BUCKET/KEY and lets us in; `options` are s3fs's."""
    limits = {**options.pop("config_kwargs", {}), **_LIMITS}
    bucket = path.removeprefix(_SCHEME).partition("/")[0]
    _open_store(**options, config_kwargs=limits).call_s3("head_bucket", Bucket=bucket)


def downloads_dir() -> Path:
    """The folder of all copies; each has a folder of its own, with the time of its last use."""
    return state_dir() / "downloads"


def _open_store(**options: Any) -> "s3fs.S3FileSystem":
    """The store of the usual variables: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and so on, or AWS's own files."""
    import s3fs

    defaults = {"config_kwargs": _LIMITS, "use_listings_cache": False, "skip_instance_cache": True}
    # Five attempts of its own would each be all those of botocore; so too where DVC asks, in this process.
    s3fs.S3FileSystem.retries = 1
    return s3fs.S3FileSystem(**{**defaults, **options})


def _objects(store: "s3fs.S3FileSystem", key: str) -> list[_Object]:
    """The object `key`, or those below it; the empty objects that stand for folders are none."""
    infos: Mapping[str, Mapping[str, Any]] = store.find(key, detail=True)
    return [
        _Object(name, int(info["size"]), _version(info))
        for name, info in infos.items()
        if info["type"] == "file" and not name.endswith("/")
    ]


def _place(key: str, name: str) -> str:
    """The path of an object within the copy; "" for the copy itself. Raises UserError where it would lead outside."""
    place = name.removeprefix(key).removeprefix("/")
    if ".." in place.split("/") or "\\" in place:
        raise UserError(f"data.path: {_SCHEME}{key} has an object {place!r}, which cannot be a file: rename it.")
    return place


def _target(copy: Path, place: str) -> Path:
    return copy / place if place else copy


def _download_all(store: "s3fs.S3FileSystem", copy: Path, missing: Mapping[str, _Object], index: _Index) -> None:
    total = sum(each.size for each in missing.values())

    def download(place: str) -> None:
        _download(store, missing[place], _target(copy, place), bar)
        index.add(place, missing[place])

    bar = tqdm(total=total, desc="download", unit="B", unit_scale=True, **bar_options())
    with bar, ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as executor:
        downloads = [executor.submit(download, place) for place in missing]
        try:
            for started in downloads:
                started.result()
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise


def _download(store: "s3fs.S3FileSystem", wanted: _Object, target: Path, bar: "tqdm[Any]") -> None:
    """Download an object; what an earlier attempt has of the same version is not asked for again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{digest_of(wanted.version.encode())[:8]}.part")
    with part.open("ab") as file:
        done = file.tell()
        bar.update(done)
        while done < wanted.size:
            block = _read_block(store, wanted, done, min(done + _BLOCK_BYTES, wanted.size))
            file.write(block)
            file.flush()
            done += len(block)
            bar.update(len(block))
    part.replace(target)


def _read_block(store: "s3fs.S3FileSystem", wanted: _Object, start: int, end: int) -> bytes:
    """As `_read`, once more where the store breaks its answer off: of a long download that happens to some block."""
    from aiohttp import ClientPayloadError

    for _ in range(_BROKEN_ANSWERS):
        with suppress(ClientPayloadError):
            return _read(store, wanted, start, end)
    return _read(store, wanted, start, end)


def _read(store: "s3fs.S3FileSystem", wanted: _Object, start: int, end: int) -> bytes:
    """The bytes from `start` to before `end`. Raises TransientError where the object is another one by now."""
    from fsspec.asyn import sync

    bucket, key, _ = store.split_path(wanted.key)
    answer = store.call_s3("get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}")

    async def read() -> bytes:
        async with answer["Body"] as body:
            if _version(answer) != wanted.version:
                raise TransientError(f"{_SCHEME}{wanted.key} was replaced while it was downloaded: start again.")
            return bytes(await body.read())

    return bytes(sync(store.loop, read))


def _version(described: Mapping[str, Any]) -> str:
    return str(described["ETag"]).strip('"')


def _remove_others(folder: Path, kept: Collection[Path]) -> None:
    """Remove what the store does not have any more, and parts of downloads of earlier versions."""
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder}: {needed / 1e6:,.0f} MB are to be downloaded there, {free / 1e6:,.0f} MB are free.")


@contextmanager
def store_errors(asked: str) -> Iterator[None]:
    """Raise what a store refuses as UserError, and what may work later as TransientError: one sentence on `asked`."""
    try:
        from aiohttp import ClientError as BrokenOffError
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    except ImportError:
        raise UserError(f"{asked} needs packages that are not installed: pip install 'vit-vs-cnn[s3]'.") from None
    try:
        yield
    except NoCredentialsError:
        raise UserError(
            f"{asked}: there are no credentials for the store: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        ) from None
    except PermissionError as error:
        raise UserError(f"{asked}: the store refuses this key ({first_line(error)}).") from None
    except FileNotFoundError as error:
        raise UserError(f"{asked}: no such bucket or object ({first_line(error)}).") from None
    except (OSError, BotoCoreError, ClientError, BrokenOffError) as error:
        raise TransientError(
            f"{asked}: the store cannot be read ({first_line(error)}); run the same command again to resume."
        ) from None
