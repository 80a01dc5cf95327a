"""The files of a folder, a tar or a zip, listed and read without extracting anything."""

import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.file_kinds import HEAD_BYTES, has_image_suffix, is_clutter

MAX_FILE_BYTES = 256 * 2**20
_CHUNK_BYTES = 2**20
# What zip files call the system of their maker: MS-DOS and its descendants.
_WINDOWS = 0
_DRIVE = re.compile(r"[A-Za-z]:")
# What the readers of archives raise; the last three where a field of a header is absurd.
_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError,
    ValueError, OverflowError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A file or folder by its path within the store; `problem` says why a file cannot be read."""

    name: str
    is_folder: bool
    problem: str | None = None


@dataclass(frozen=True)
class Store:
    """A folder or an archive: its members in any order, folders that hold files not always among them.

    `read` gives name and content of each file among the names that it gets, in any order. `heads` gives the first
    HEAD_BYTES of files without an image's suffix, by their names, apart from those that cannot be read.
    """

    members: list[Member]
    read: Callable[[Collection[str]], Iterator[tuple[str, bytes]]]
    heads: Callable[[Collection[str]], dict[str, bytes]] = lambda _: {}


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
        here = Path(folder)
        prefix = "" if here == path else f"{here.relative_to(path).as_posix()}/"
        members += [Member(f"{prefix}{name}", is_folder=True) for name in subfolders]
        members += [Member(f"{prefix}{name}", False, _problem_of(here / name)) for name in files]
        # What systems keep is listed but not entered: it may be large, or closed to everyone but the system.
        subfolders[:] = [name for name in subfolders if not is_clutter(name)]
        for name in subfolders:
            _refuse_loop(here / name)

    def read(names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        with _readable(path):
            for name in names:
                yield name, (path / name).read_bytes()

    def heads(names: Collection[str]) -> dict[str, bytes]:
        found = {}
        for name in names:
            with suppress(OSError), (path / name).open("rb") as file:
                found[name] = file.read(HEAD_BYTES)
        return found

    return Store(members, read, heads)


def _open_zip(path: Path) -> Store:
    members = []
    with zipfile.ZipFile(path) as archive:
        infos = list(zip(_zip_names(archive), archive.infolist(), strict=True))
        for name, info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            _refuse_unsafe(path, info.filename, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
            # The reader takes as much memory as either says, whatever there is.
            problem = _size_problem(info.file_size) or _size_problem(info.compress_size)
            members.append(Member(name.rstrip("/"), name.endswith("/"), problem))

    def read(names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        with _readable(path), zipfile.ZipFile(path) as archive:
            for name, info in infos:
                if name in names:
                    yield name, archive.read(info)

    def heads(names: Collection[str]) -> dict[str, bytes]:
        found = {}
        with _readable(path), zipfile.ZipFile(path) as archive:
            for name, info in infos:
                if name in names:
                    with suppress(*_DAMAGED), archive.open(info) as file:
                        found[name] = file.read(HEAD_BYTES)
        return found

    return Store(members, read, heads)


def _zip_names(archive: zipfile.ZipFile) -> list[str]:
    """The names in a zip with slashes, also where Windows has put backslashes.

    Elsewhere a backslash is a character like others; as the end of a top folder's name nobody uses it.
    """
    names = [info.filename for info in archive.infolist()]
    windows = any("\\" in name.partition("/")[0] for name in names)
    return [
        name.replace("\\", "/") if windows or info.create_system == _WINDOWS else name
        for name, info in zip(names, archive.infolist(), strict=True)
    ]


def _open_tar(path: Path) -> Store:
    members = []
    # Kept for the second pass, which then need not parse the headers again.
    places: dict[str, tuple[int, int]] = {}
    # Kept too: another pass through a compressed file takes as long as the first one.
    odd_heads: dict[str, bytes] = {}
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
            if not has_image_suffix(member.name) and (content := archive.extractfile(member)):
                odd_heads[member.name] = content.read(HEAD_BYTES)
        # To the very end, where a compressed file keeps its checksum.
        while archive.fileobj and archive.fileobj.read(_CHUNK_BYTES):
            pass
        if archive.fileobj and archive.fileobj.tell() < archive.offset + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("the block that marks the end is missing")

    def read(names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        with _readable(path), tarfile.open(path) as archive:
            for name, (offset, size) in places.items():
                if name in names and archive.fileobj:
                    archive.fileobj.seek(offset)
                    yield name, archive.fileobj.read(size)

    def heads(names: Collection[str]) -> dict[str, bytes]:
        return {name: odd_heads[name] for name in names if name in odd_heads}

    return Store(members, read, heads)


def _problem_of(file: Path) -> str | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return "a link to nothing"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    return _size_problem(status.st_size) if os.access(file, os.R_OK) else "no permission to read it"


def _size_problem(size: int) -> str | None:
    return f"{size:,} bytes, more than the {MAX_FILE_BYTES:,} accepted" if size > MAX_FILE_BYTES else None


def _refuse_loop(folder: Path) -> None:
    if folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: links to a folder that it lies in: remove this link.")


def _refuse_unsafe(archive: Path, name: str, *, plain: bool) -> None:
    outside = name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or _DRIVE.match(name)
    if outside or not plain:
        problem = "has a path that leads outside the archive" if outside else "is a link or a device"
        raise UserError(f"{archive}: member {name!r} {problem}: refused; pack the images again as plain files.")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise UserError where the system cannot read `path` or a file in it, or a reader finds an archive damaged."""
    try:
        yield
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno:
            raise UserError(f"{error.filename or path}: cannot be read ({error.strerror}).") from None
        raise UserError(
            f"{path}: is damaged, cut short or encrypted ({error}): copy or download it again, then compare checksums."
        ) from None


def _raise(error: OSError) -> None:
    raise error
