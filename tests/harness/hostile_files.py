"""Archives and images of the kinds that break readers, drawn from a seed."""

import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from factories import encoded

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F")
NAMES = (
    "../1.png", "cat/../../1.png", "/cat/1.png", "cat\\..\\..\\1.png", "C:\\1.png", "\\\\host\\1.png", "..\\1.png",
    "~/1.png", "cat/..", ".", "", "/", "cat//1.png", "./cat/1.png", "cat/./1.png", "cat/CON.png", "cat/1.png ",
    "cat/1.png.", "cat/\x1b[31m1.png", "cat/\u202egnp.1", "cat/a\nb.png", "cat/a\0b.png",
    "cat/" + "x" * 5000 + ".png", "x/" * 2000 + "1.png", "CAT/1.png", "Cat/1.PNG", "cat/1.png", "cat",
    "cat/1.png/2.png", "cafe\u0301/1.png", "caf\u00e9/1.png", "<img src=x onerror=alert(1)>/1.png", "=SUM(1)/1.png",
    "cat/\udcff.png", "train/val/test/1.png", "__MACOSX/cat/1.png",
)  # fmt: skip


def picture(random: Random, side: int = 12) -> Image.Image:
    pixels = np.frombuffer(random.randbytes(side * side * 3), np.uint8).reshape(side, side, 3)
    return Image.fromarray(pixels)


def good_images(random: Random) -> dict[str, bytes]:
    """A data set that can be prepared."""
    return {f"{name}/{i}.png": encoded(picture(random)) for name in ("cat", "dog") for i in range(8)}


def hostile_image(random: Random) -> bytes:
    """One image file."""
    return random.choice(_IMAGES)(random)


def hostile_archive(random: Random, path: Path) -> Path:
    """An archive in the folder `path`, which may be a folder itself."""
    return random.choice(_ARCHIVES)(random, path)


def large_files(random: Random, folder: Path) -> Path:
    """An archive of less than a megabyte whose files have 400 megabytes."""
    return write_zip(folder / "a.zip", good_images(random) | {f"cat/{i}.png": bytes(100 * 2**20) for i in range(9, 13)})


def cut(random: Random, content: bytes) -> bytes:
    """The file cut off at a percentage of its length."""
    return content[: len(content) * random.randrange(100) // 100]


def flipped(random: Random, content: bytes) -> bytes:
    """The file with some bytes changed, most of them near its start, where its structure is."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 8)):
        last = len(changed) - 1 if random.random() < 0.3 else min(len(changed) - 1, 64)
        changed[random.randint(0, last)] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
    return bytes(changed)


def _any_format(random: Random) -> bytes:
    while True:
        try:
            image = picture(random).convert("RGB")
            mode = random.choice(MODES)
            if mode in ("I", "F", "I;16"):
                kind = {"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]
                values = np.frombuffer(random.randbytes(12 * 12 * 4), np.dtype(kind))[:144].reshape(12, 12)
                image = Image.fromarray(values)
            else:
                image = image.convert(mode) if mode not in ("LAB", "HSV") else image.convert("LAB")
            return encoded(image, random.choice(FORMATS))
        except (OSError, ValueError, KeyError):
            continue  # this format has no such mode


def _animated(random: Random) -> bytes:
    frames = [picture(random) for _ in range(3)]
    kind = random.choice(("GIF", "WEBP", "PNG", "TIFF"))
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def _floats(random: Random) -> bytes:
    values = np.array([np.nan, np.inf, -np.inf, 3.4e38, -1e-45, 0], np.float32)
    return encoded(
        Image.fromarray(values[np.array([[random.randrange(6) for _ in range(12)] for _ in range(12)])]), "TIFF"
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2, pixels: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IDAT", zlib.compress(pixels)) + _chunk(b"IEND", b"")
    )


def _claims(random: Random) -> bytes:
    """A header that claims any size."""
    sides = [random.choice((0, 1, 2, 65_535, 65_536, 100_000, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
    return random.choice(
        (
            _png(*sides, pixels=bytes(100)),
            b"P6\n%d %d\n255\n" % tuple(sides) + bytes(100),
            b"P5 %d %d 65535 " % tuple(sides),
            b"GIF89a" + struct.pack("<HHBBB", *(side % 65_536 for side in sides), 0, 0, 0) + bytes(20),
            b"BM"
            + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, *(s - 2**31 for s in sides), 1, 24, 0, 0, 0, 0, 0, 0),
        )
    )


def _bomb(random: Random) -> bytes:
    """Many pixels in few bytes: more than the limit, or as many as it allows."""
    side = random.choice((2_000, 5_000, 20_000))
    return encoded(Image.new("L", (side, side)), "PNG", compress_level=9) if side < 20_000 else _png(side, side)


def _text_bomb(random: Random) -> bytes:
    text = zlib.compress(bytes(20 * 2**20))
    kind = random.choice((b"zTXt", b"iCCP", b"iTXt"))
    content = b"key\0\0" + text if kind != b"iTXt" else b"key\0\1\0\0\0" + text
    return _png(8, 8, _chunk(kind, content), pixels=bytes(8 * 25))


def _text(random: Random) -> bytes:
    return random.choice(
        (
            b"", b"\0" * 300, b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
            b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><svg>&b;</svg>",
            b"%PDF-1.4\n%%EOF", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n",
            b"#!/bin/sh\ntouch broken-in\n",
            b"push graphic-context\nfill 'url(https://127.0.0.1/x\")'\n", b"version https://git-lfs.github.com/spec/v1\n",
            b"\0\0\0\x20ftypheic" + bytes(80), b"\0\0\0\x20ftypavif" + bytes(80), b"\xff\x4f\xff\x51" + bytes(80),
            b"II*\0\x08\0\0\0\x01\0\x00\x01\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
        )
    )  # fmt: skip


def _polyglot(random: Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../broken-in", "x")
    image = encoded(picture(random), random.choice(("PNG", "JPEG", "GIF")))
    return random.choice((image + file.getvalue(), image + b"<script>alert(1)</script>", image[:20] + image))


def _tagged(random: Random) -> bytes:
    """EXIF and ICC blocks of garbage."""
    exif = b"Exif\0\0" + random.choice((b"II*\0", b"MM\0*")) + random.randbytes(random.randrange(60))
    return encoded(picture(random), random.choice(("JPEG", "PNG", "WEBP")), exif=exif, icc_profile=random.randbytes(50))


_SEEDS = (_any_format, _animated, _tagged, _floats)
_IMAGES: tuple[Callable[[Random], bytes], ...] = (
    *_SEEDS, _claims, _bomb, _text_bomb, _text, _polyglot,
    *(lambda random, change=change: change(random, random.choice(_SEEDS)(random)) for change in (cut, flipped) * 3),
)  # fmt: skip


def _with_hostile_images(random: Random) -> dict[str, bytes]:
    files = good_images(random)
    for number in range(random.randint(1, 3)):
        suffix = random.choice((".png", ".jpg", ".tif", ".gif", ".svg", ".webp", "", ".PNG"))
        files[f"{random.choice(('cat', 'dog'))}/hostile-{number}{suffix}"] = hostile_image(random)
    return files


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo()
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w:") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _written(random: Random, folder: Path, files: dict[str, bytes]) -> Path:
    kind = random.choice(("zip", "tar", "tar.gz", "tar.xz", "tar.bz2"))
    try:
        if kind == "zip":
            return write_zip(folder / "a.zip", files)
        return write_tar(folder / f"a.{kind}", files, "w:" + kind.partition(".")[2])
    except (UnicodeEncodeError, ValueError):
        return write_zip(folder / "a.zip", good_images(random))  # a name that this kind cannot have


def _images(random: Random, folder: Path) -> Path:
    return _written(random, folder, _with_hostile_images(random))


def _a_folder(random: Random, folder: Path) -> Path:
    for name, content in _with_hostile_images(random).items():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(content)
    link = folder / "images/cat/link.png"
    link.symlink_to(random.choice(("/etc/passwd", "/dev/zero", "/dev/full", "../..", "link.png", "/nowhere", "1.png")))
    return folder / "images"


def _names(random: Random, folder: Path) -> Path:
    files = good_images(random)
    for name in random.sample(NAMES, random.randint(1, 3)):
        files[name] = encoded(picture(random))
    return _written(random, folder, files)


def _duplicates(random: Random, folder: Path) -> Path:
    path = write_zip(folder / "a.zip", good_images(random))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(random.choice(("cat/1.png", "cat/1.png/", "CAT/1.png")), b"x")
    return path


def _damaged(random: Random, folder: Path) -> Path:
    path = _written(random, folder, good_images(random))
    path.write_bytes(random.choice((cut, flipped))(random, path.read_bytes()))
    return path


_TYPES = (
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"?",
)  # fmt: skip


def _special(random: Random, folder: Path) -> Path:
    """Links, devices, sizes that are none."""
    path = write_tar(folder / "a.tar", good_images(random))
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("cat/special.png")
        info.type = random.choice(_TYPES)
        info.linkname = random.choice(("/etc/passwd", "../../x", "cat/special.png", ""))
        info.pax_headers = random.choice(
            ({}, {"size": "-1"}, {"size": "9" * 30}, {"path": "../x"}, {"GNU.sparse.map": "0,9"})
        )
        archive.addfile(info)
    return path


def _zip_kinds(random: Random, folder: Path) -> Path:
    """Fields of a zip that lie: methods, flags, sizes, checksums, links."""
    path = write_zip(folder / "a.zip", good_images(random))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    offset, width = random.choice(((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (38, 4), (42, 4)))
    content[entry + offset : entry + offset + width] = random.randbytes(width)
    if random.random() < 0.3:
        content[entry + 38 : entry + 42] = struct.pack("<I", (stat.S_IFLNK | 0o777) << 16)
    path.write_bytes(content)
    return path


def _file_bomb(random: Random, folder: Path) -> Path:
    """A file of many megabytes of nothing."""
    size = random.choice((10, 100, 300)) * 2**20
    files = good_images(random)
    if random.random() < 0.5:
        return write_zip(folder / "a.zip", files | {"cat/bomb.png": bytes(size)})
    plain = write_tar(folder / "plain.tar", files).read_bytes()
    (folder / "a.tar.gz").write_bytes(
        gzip.compress(plain + bytes(size // 4), 1) if size < 2**28 else lzma.compress(plain)
    )
    return folder / "a.tar.gz"


def _many(random: Random, folder: Path) -> Path:
    """Many entries; 100,000 of them are a test of their own."""
    return write_zip(folder / "a.zip", good_images(random) | {f"cat/{i}.txt": b"" for i in range(2_000)})


_ARCHIVES = (
    _images, _images, _a_folder, _names, _names, _duplicates, _damaged, _damaged, _special, _zip_kinds, _many,
    _file_bomb,
)  # fmt: skip
