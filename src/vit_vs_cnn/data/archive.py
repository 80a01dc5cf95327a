"""The files of a folder, a tar or a zip, listed and read without extracting anything."""

import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import UserError

MAX_FILE_BYTES = 256 * 2**20
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Member:
    """A file or folder by its path within the store; `problem` says why a file cannot be read."""

    name: str
    is_folder: bool
    problem: str | None = None


@dataclass(frozen=True)
class Store:
    """A folder or an archive: its members in any order, folders that hold files not always among them.

    `read` gives name and content of each file among the names that it gets, in any order.
    """

    members: list[Member]
    read: Callable[[Collection[str]], Iterator[tuple[str, bytes]]]


def open_store(path: Path) -> Store:
    """Open the folder, tar (compressed or not) or zip at `path`.

    Raises UserError if it is none of them, damaged, or unsafe to unpack; so does reading from it.
    """
    with _readable(path):
        if not path.exists():
            raise UserError(f"data.path: {path} does not exist: name a folder of images, a tar or a zip.")
        if path.is_dir():
            return _open_folder(path)
        if zipfile.is_zipfile(path):
            return _open_zip(path)
        if tarfile.is_tarfile(path):
            return _open_tar(path)
    raise UserError(f"data.path: {path} is neither a folder nor a tar or zip archive, or it is damaged or cut short.")


def _open_folder(path: Path) -> Store:
    members = []
    for folder, subfolders, files in os.walk(path, followlinks=True, onerror=_raise):
        inside = Path(folder)
        for name in subfolders:
            _refuse_loop(inside / name)
            members.append(Member((inside / name).relative_to(path).as_posix(), is_folder=True))
        for name in files:
            file = inside / name
            members.append(Member(file.relative_to(path).as_posix(), is_folder=False, problem=_problem_of(file)))

    def read(names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        with _readable(path):
            for name in names:
                yield name, (path / name).read_bytes()

    return Store(members, read)


def _open_zip(path: Path) -> Store:
    members = []
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            _refuse_unsafe(path, info.filename, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
            members.append(Member(info.filename.rstrip("/"), info.is_dir(), _size_problem(info.file_size)))

    def read(names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        with _readable(path), zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename in names:
                    yield info.filename, archive.read(info)

    return Store(members, read)


def _open_tar(path: Path) -> Store:
    members = []
    # Kept for the second pass, which then need not parse the headers again.
    places: dict[str, tuple[int, int]] = {}
    with (
        path.open("rb") as file,
        tqdm.wrapattr(file, "read", total=path.stat().st_size, desc="listing", **bar_options()) as counted,
        tarfile.open(fileobj=counted) as archive,
    ):
        for member in archive:
            plain = (member.isreg() and not member.issparse()) or member.isdir()
            _refuse_unsafe(path, member.name, plain=plain)
            members.append(Member(member.name, member.isdir(), _size_problem(member.size)))
            places[member.name] = member.offset_data, member.size
        # To the very end, where a compressed file keeps its checksum.
        while archive.fileobj and archive.fileobj.read(_CHUNK_BYTES):
            pass

    def read(names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        with _readable(path), tarfile.open(path) as archive:
            for name, (offset, size) in places.items():
                if name in names and archive.fileobj:
                    archive.fileobj.seek(offset)
                    yield name, archive.fileobj.read(size)

    return Store(members, read)


def _problem_of(file: Path) -> str | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return "a link to nothing"
    return _size_problem(status.st_size) if stat.S_ISREG(status.st_mode) else "not a regular file"


def _size_problem(size: int) -> str | None:
    return f"{size:,} bytes, more than the {MAX_FILE_BYTES:,} accepted" if size > MAX_FILE_BYTES else None


def _refuse_loop(folder: Path) -> None:
    if folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: links to a folder that it lies in: remove this link.")


def _refuse_unsafe(archive: Path, name: str, *, plain: bool) -> None:
    outside = name.startswith("/") or ".." in name.split("/")
    if outside or not plain:
        problem = "has a path that leads outside the archive" if outside else "is a link or a device"
        raise UserError(f"{archive}: member {name!r} {problem}: refused; pack the images again as plain files.")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise UserError where the system cannot read `path` or a file in it, or a reader finds an archive damaged."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise UserError(f"{error.filename or path}: cannot be read ({error.strerror}).") from None
        raise UserError(
            f"{path}: is damaged, cut short or encrypted ({error}): copy or download it again, then compare checksums."
        ) from None


def _raise(error: OSError) -> None:
    raise error
