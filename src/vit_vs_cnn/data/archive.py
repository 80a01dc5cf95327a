"""The files of a folder, a tar or a zip, listed and read without extracting anything."""

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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


class Store(Protocol):
    """A folder or an archive and what it holds, in any order; folders may be left out where they hold files."""

    members: list[Member]

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Name and content of each file in `names`, in any order."""


def open_store(path: Path) -> Store:
    """The folder, tar (compressed or not) or zip at `path`.

    Raises UserError if it is none of them, damaged, or unsafe to unpack; so does reading from it.
    """
    try:
        if path.is_dir():
            return _Folder(path)
        if zipfile.is_zipfile(path):
            return _Zip(path)
        if tarfile.is_tarfile(path):
            return _Tar(path)
    except FileNotFoundError:
        raise UserError(f"data.path: {path} does not exist: name a folder of images, a tar or a zip.") from None
    except OSError as error:
        raise UserError(f"data.path: {path} cannot be read ({error.strerror or error}).") from None
    except (EOFError, zlib.error):
        pass
    raise UserError(f"data.path: {path} is neither a folder nor a tar or zip archive, or it is damaged or cut short.")


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.members: list[Member] = []
        with _readable(path):
            for folder, subfolders, files in os.walk(path, followlinks=True, onerror=_raise):
                here = Path(folder)
                for name in subfolders:
                    _refuse_loop(here / name)
                    self.members.append(Member((here / name).relative_to(path).as_posix(), is_folder=True))
                self.members += [_file(path, here / name) for name in files]

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            with _readable(self._path / name):
                content = (self._path / name).read_bytes()
            yield name, content


class _Zip:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.members: list[Member] = []
        with _intact(path), zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                _refuse_unsafe(path, info.filename, regular=kind in (0, stat.S_IFREG, stat.S_IFDIR))
                self.members.append(Member(info.filename.rstrip("/"), info.is_dir(), _size_problem(info.file_size)))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        with _intact(self._path), zipfile.ZipFile(self._path) as archive:
            for info in archive.infolist():
                if info.filename in names:
                    yield info.filename, archive.read(info)


class _Tar:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.members: list[Member] = []
        # Kept for the second pass, which then need not parse the headers again.
        self._places: dict[str, tuple[int, int]] = {}
        with (
            _intact(path),
            path.open("rb") as file,
            tqdm.wrapattr(file, "read", total=path.stat().st_size, desc="listing", **bar_options()) as counted,
            tarfile.open(fileobj=counted) as archive,
        ):
            for member in archive:
                plain = (member.isreg() and not member.issparse()) or member.isdir()
                _refuse_unsafe(path, member.name, regular=plain)
                self.members.append(Member(member.name, member.isdir(), _size_problem(member.size)))
                self._places[member.name] = member.offset_data, member.size
            # To the very end, where a compressed file keeps its checksum.
            while archive.fileobj and archive.fileobj.read(_CHUNK_BYTES):
                pass

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        with _intact(self._path), tarfile.open(self._path) as archive:
            for name, (offset, size) in self._places.items():
                if name in names and archive.fileobj:
                    archive.fileobj.seek(offset)
                    yield name, archive.fileobj.read(size)


def _file(root: Path, path: Path) -> Member:
    name = path.relative_to(root).as_posix()
    try:
        status = path.stat()
    except FileNotFoundError:
        return Member(name, is_folder=False, problem="a link to nothing")
    if not stat.S_ISREG(status.st_mode):
        return Member(name, is_folder=False, problem="not a regular file")
    return Member(name, is_folder=False, problem=_size_problem(status.st_size))


def _refuse_loop(folder: Path) -> None:
    if folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: links to a folder that it lies in: remove this link.")


def _refuse_unsafe(archive: Path, name: str, *, regular: bool) -> None:
    if name.startswith("/") or ".." in name.split("/"):
        problem = "has a path that leads outside the archive"
    elif not regular:
        problem = "is a link or a device"
    else:
        return
    raise UserError(f"{archive}: member {name!r} {problem}: refused; pack the images again as plain files.")


def _size_problem(size: int) -> str | None:
    return f"{size:,} bytes, more than the {MAX_FILE_BYTES:,} accepted" if size > MAX_FILE_BYTES else None


@contextmanager
def _intact(archive: Path) -> Iterator[None]:
    """Says in one sentence that an archive is damaged, in whichever way its reader says so."""
    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,
        NotImplementedError,
    ) as e:
        raise UserError(
            f"{archive}: is damaged, cut short or encrypted ({e}): copy or download it again, then compare checksums."
        ) from None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read ({error.strerror}).") from None


def _raise(error: OSError) -> None:
    raise error
