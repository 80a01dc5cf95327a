import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data import archive
from vit_vs_cnn.data.archive import open_store
from vit_vs_cnn.data.file_kinds import HEAD_BYTES

FILES = {"cat/1.bin": b"one" * 5_000, "cat/2.bin": os.urandom(20_000), "dog/deep/3.bin": b""}


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def contents(path: Path) -> dict[str, bytes]:
    store = open_store(path)
    return dict(store.read([member.name for member in store.members if not member.is_folder]))


def special_tar(path: Path, kind: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("cat/1.png")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    return path


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz", "tar.xz", "zip"])
def test_every_kind_of_store_gives_the_same_files(tmp_path: Path, kind: str):
    path = tmp_path / f"images.{kind}"
    if kind == "folder":
        write_folder(path, FILES)
    elif kind == "zip":
        write_zip(path, FILES)
    else:
        write_tar(path, FILES, "w:" + kind.partition(".")[2])
    assert contents(path) == FILES


def test_only_wanted_files_are_read(tmp_path: Path):
    for path in (write_tar(tmp_path / "a.tar", FILES), write_zip(tmp_path / "a.zip", FILES)):
        assert dict(open_store(path).read(["cat/2.bin"])) == {"cat/2.bin": FILES["cat/2.bin"]}


def test_nothing_is_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_tar(tmp_path / "a.tar.gz", FILES, "w:gz")
    monkeypatch.chdir(tmp_path)
    contents(path)
    assert list(tmp_path.rglob("*")) == [path]


@pytest.mark.parametrize("system", [0, 3])
def test_backslashes_of_windows_are_slashes(tmp_path: Path, system: int):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("pets\\cat\\", *(f"pets/{name}".replace("/", "\\") for name in FILES)):
            info = zipfile.ZipInfo(name)
            info.create_system = system
            file.writestr(info, FILES.get(name.replace("\\", "/").removeprefix("pets/"), b""))
    assert contents(tmp_path / "a.zip") == {f"pets/{name}": content for name, content in FILES.items()}
    assert [member.name for member in open_store(tmp_path / "a.zip").members if member.is_folder] == ["pets/cat"]


def test_a_backslash_in_a_file_name_of_unix_stays(tmp_path: Path):
    files = {"cat/1\\2.png": b"1"}
    assert contents(write_zip(tmp_path / "a.zip", files)) == files


UNSAFE = [
    "../cat/1.png",
    "cat/../../1.png",
    "/cat/1.png",
    "cat\\..\\..\\1.png",
    "C:\\cat\\1.png",
    "c:/1.png",
    "\\\\host\\1.png",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_a_path_that_leads_outside_is_refused(tmp_path: Path, name: str):
    for path in (write_tar(tmp_path / "a.tar", {name: b"x"}), write_zip(tmp_path / "a.zip", {name: b"x"})):
        with pytest.raises(UserError, match="leads outside the archive"):
            open_store(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes):
    with pytest.raises(UserError, match=r"'cat/1\.png' is a link or a device"):
        open_store(special_tar(tmp_path / "a.tar", kind))


def test_a_link_in_a_zip_is_refused(tmp_path: Path):
    info = zipfile.ZipInfo("cat/1.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="is a link or a device"):
        open_store(tmp_path / "a.zip")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_a_truncated_tar_gz_is_one_sentence(tmp_path: Path, share: float):
    path = write_tar(tmp_path / "a.tar.gz", FILES, "w:gz")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UserError, match=r"a\.tar\.gz.* damaged"):
        open_store(path)


def test_a_tar_that_ends_between_two_files_is_cut_short(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset])
    with pytest.raises(UserError, match=r"a\.tar.*cut short"):
        open_store(path)


def test_a_size_that_no_file_has_is_one_sentence(tmp_path: Path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("cat/1.png")
        info.pax_headers = {"size": "9" * 30}
        tar.addfile(info)
    with pytest.raises(UserError, match=r"a\.tar: is damaged"):
        open_store(path)


def test_a_truncated_tar_is_one_sentence(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", FILES)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(UserError, match="damaged, cut short"):
        open_store(path)


@pytest.mark.parametrize(("ending", "pack"), [("gz", partial(gzip.compress, compresslevel=0)), ("xz", lzma.compress)])
def test_a_flipped_bit_in_a_compressed_archive_is_found(tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]):
    packed = bytearray(pack(write_tar(tmp_path / "a.tar", FILES).read_bytes()))
    packed[len(packed) // 3] ^= 1
    (tmp_path / f"a.tar.{ending}").write_bytes(packed)
    with pytest.raises(UserError, match="damaged"):
        open_store(tmp_path / f"a.tar.{ending}")


def test_a_truncated_zip_and_a_damaged_member_are_one_sentence(tmp_path: Path):
    path = write_zip(tmp_path / "a.zip", FILES)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(UserError, match="damaged or cut short"):
        open_store(path)
    at = len(whole) // 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(UserError, match="is damaged"):
        contents(path)


def test_no_archive_and_no_file_are_one_sentence(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("no images here")
    with pytest.raises(UserError, match=r"notes\.txt is neither a folder nor a tar or zip"):
        open_store(tmp_path / "notes.txt")
    with pytest.raises(UserError, match=r"nothing\.tar does not exist"):
        open_store(tmp_path / "nothing.tar")


def test_a_file_above_the_limit_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 16_000)
    stores = [
        write_folder(tmp_path / "a", FILES),
        write_tar(tmp_path / "a.tar", FILES),
        write_zip(tmp_path / "a.zip", FILES),
    ]
    for store in stores:
        problems = {member.name: member.problem for member in open_store(store).members if member.problem}
        assert problems == {"cat/2.bin": "20,000 bytes, more than the 16,000 accepted"}


def test_a_folder_may_hold_links_but_no_loops_and_pipes_do_not_block(tmp_path: Path):
    folder = write_folder(tmp_path / "images", {"cat/1.bin": b"1"})
    other = write_folder(tmp_path / "other", {"2.bin": b"2"})
    (folder / "dog").symlink_to(other)
    assert contents(folder) == {"cat/1.bin": b"1", "dog/2.bin": b"2"}
    os.mkfifo(folder / "cat" / "pipe")
    (folder / "cat" / "gone").symlink_to(tmp_path / "nowhere")
    problems = {member.name: member.problem for member in open_store(folder).members if member.problem}
    assert problems == {"cat/pipe": "not a regular file", "cat/gone": "a link to nothing"}
    (folder / "cat" / "loop").symlink_to(folder)
    with pytest.raises(UserError, match="loop: links to a folder that it lies in"):
        open_store(folder)


def test_what_systems_keep_is_listed_but_not_entered(tmp_path: Path):
    folder = write_folder(tmp_path / "images", {"cat/1.bin": b"1", "lost+found/2.bin": b"2", ".git/3.bin": b"3"})
    assert contents(folder) == {"cat/1.bin": b"1"}
    folders = {member.name for member in open_store(folder).members if member.is_folder}
    assert folders == {"cat", "lost+found", ".git"}


def test_heads_are_the_first_bytes_of_files_that_are_not_named_like_images(tmp_path: Path):
    for path in (
        write_folder(tmp_path / "a", FILES),
        write_tar(tmp_path / "a.tar.gz", FILES, "w:gz"),
        write_zip(tmp_path / "a.zip", FILES),
    ):
        heads = open_store(path).heads(["cat/2.bin", "dog/deep/3.bin"])
        assert heads == {"cat/2.bin": FILES["cat/2.bin"][:HEAD_BYTES], "dog/deep/3.bin": b""}


def test_a_file_that_was_deleted_meanwhile_is_named(tmp_path: Path):
    store = open_store(write_folder(tmp_path / "images", {"cat/1.bin": b"1"}))
    (tmp_path / "images/cat/1.bin").unlink()
    with pytest.raises(UserError, match=r"cat/1\.bin: cannot be read"):
        list(store.read(["cat/1.bin"]))
