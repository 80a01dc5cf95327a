import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import PREPARED_SPLITS
from vit_vs_cnn.data.sources.folder import open_folder
from vit_vs_cnn.data.sources.source import Source


def write(folder: Path, *names: str) -> Path:
    for name in names:
        if name.endswith("/"):
            (folder / name).mkdir(parents=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content(name))
    return folder


def content(name: str) -> bytes:
    """The begin of a PNG file, and what tells it from others."""
    return b"\x89PNG" + name.encode()


def placed(source: Source) -> list[tuple[str, str, str]]:
    """Split, class and name of each image."""
    return [
        (PREPARED_SPLITS[split], source.classes[label], name)
        for split, label, name in zip(source.splits, source.labels, source.names, strict=True)
    ]


def test_class_folders_alone_are_train_and_lack_the_other_splits(tmp_path: Path):
    source = open_folder(write(tmp_path, "dog/b.png", "dog/a.png", "cat/deep/c.png"))
    assert source.classes == ("cat", "dog")
    assert source.missing == ("test", "val")
    assert placed(source) == [
        ("train", "cat", "cat/deep/c.png"),
        ("train", "dog", "dog/a.png"),
        ("train", "dog", "dog/b.png"),
    ]


def test_split_folders_are_kept(tmp_path: Path):
    names = ["train/cat/1", "train/dog/1", "val/cat/1", "test/dog/1"]
    source = open_folder(write(tmp_path, *names))
    assert source.missing == ()
    assert sorted(placed(source)) == sorted((name.split("/")[0], name.split("/")[1], name) for name in names)
    assert open_folder(write(tmp_path / "two", "train/cat/1", "train/dog/1", "test/dog/1")).missing == ("val",)
    assert open_folder(write(tmp_path / "one", "train/cat/1", "train/dog/1")).missing == ("test", "val")


@pytest.mark.parametrize("names", [["train/cat/1", "train/dog/2", "test/dog/3"], ["cat/1", "dog/2"]])
def test_folders_around_everything_and_files_beside_them_do_not_matter(tmp_path: Path, names: list[str]):
    plain = open_folder(write(tmp_path / "plain", *names))
    wrapped = open_folder(write(tmp_path / "wrapped", *(f"pets/v2/{name}" for name in names), "pets/README.md"))
    assert [entry[:2] for entry in placed(plain)] == [entry[:2] for entry in placed(wrapped)]
    assert wrapped.names == tuple(f"pets/v2/{name}" for name in plain.names)
    assert wrapped.stray == ("pets/README.md",)


def test_folder_tar_and_zip_give_the_same_images_in_the_same_order(tmp_path: Path):
    names = ["train/dog/2", "train/cat/9", "train/cat/10", "train/cat-like/1", "test/cat/1"]
    folder = write(tmp_path / "pets", *names)
    with tarfile.open(tmp_path / "pets.tgz", "w:gz") as tar, zipfile.ZipFile(tmp_path / "pets.zip", "w") as zipped:
        for name in names:
            tar.add(folder / name, f"./{name}")
            zipped.write(folder / name, name)
    sources = [open_folder(path) for path in (folder, tmp_path / "pets.tgz", tmp_path / "pets.zip")]
    assert placed(sources[0]) == placed(sources[2])
    read = [{s.names[position].removeprefix("./"): found for position, found in s.read()} for s in sources]
    assert read[0] == read[1] == read[2] == {name: content(name) for name in names}
    orders = [[name.removeprefix("./") for name in source.names] for source in sources]
    assert orders[0] == orders[1] == orders[2]


def test_files_of_systems_are_passed_over_and_counted(tmp_path: Path):
    clutter = ["cat/.DS_Store", "__MACOSX/cat/._1.png", ".git/config", "dog/Thumbs.db", "cat/@eaDir/1.png/x.jpg"]
    clutter += ["$RECYCLE.BIN/1.png", "lost+found/1.png", "dog/.DS_Store", "System Volume Information/x"]
    source = open_folder(write(tmp_path, "cat/1.png", "dog/1.png", *clutter))
    assert source.classes == ("cat", "dog")
    assert source.names == ("cat/1.png", "dog/1.png")
    assert source.stray == ()
    assert source.notes[-1].startswith("9 hidden files or folders of systems are passed over: .DS_Store (2), ")


def test_files_in_class_folders_that_are_no_images_are_a_note_and_never_unreadable(tmp_path: Path):
    write(tmp_path, "cat/1.png", "cat/without_suffix", "dog/1.png", "dog/damaged.jpg", "dog/scan.heic")
    for name in ("cat/README.txt", "cat/LICENSE", "dog/labels.csv", "dog/damaged.jpg", "dog/deep.txt", "x.txt"):
        (tmp_path / name).write_text("only words")
    (tmp_path / "dog" / "empty").write_bytes(b"")
    with tarfile.open(tmp_path.with_suffix(".tar"), "w") as tar, zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        for path in sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".zip"):
            name = str(path.relative_to(tmp_path))
            tar.add(path, name)
            zipped.write(path, name)
    (tmp_path / "x.zip").rename(tmp_path.with_suffix(".zip"))
    for path in (tmp_path, tmp_path.with_suffix(".tar"), tmp_path.with_suffix(".zip")):
        source = open_folder(path)
        # A damaged image and an image of a format that is not read stay what they are: unreadable when decoded.
        assert source.names == ("cat/1.png", "cat/without_suffix", "dog/1.png", "dog/damaged.jpg", "dog/scan.heic")
        assert source.unreadable == ()
        assert source.stray == ("x.txt",)
        assert source.notes[-1] == (
            "5 files in class folders are no images and are passed over: cat/LICENSE, cat/README.txt, dog/deep.txt, "
            "dog/empty, dog/labels.csv."
        )


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([], "holds no image folders"),
        (["a.png", "b.png"], "holds no image folders"),
        (["cat/1.png"], r"only one class \(cat\).*data\.class_level: 2.*data\.source: table"),
        (["train/cat/1.png", "test/cat/1.png"], r"only one class \(cat\)"),
        (["train/1.png", "train/2.png"], "no class folders"),
        (["cat/1.png", "dog/"], r"1 class folders without images \(dog\).*`data\.splits: {train: FOLDER}`"),
        (["train/cat/1.png", "train/dog/1.png", "test/"], "has test/ without images"),
        (["test/cat/1.png", "test/dog/1.png"], "has test/ but no train/"),
        (["train/cat/1", "train/dog/1", "test/emu/1"], "the class 'emu' in test/ but not in train/"),
        (["train/cat/1", "train/dog/1", "test/test_tube/1"], "the class 'test_tube' in test/ but not in train/"),
    ],
)
def test_a_layout_that_cannot_be_meant_is_one_sentence(tmp_path: Path, names: list[str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        open_folder(write(tmp_path, *names))


@pytest.mark.parametrize(
    ("name", "sentence"), [("./cat/1", "holds cat/1 more than once"), (".", "holds a file without a name")]
)
def test_a_file_twice_or_without_a_name_in_an_archive_is_named(tmp_path: Path, name: str, sentence: str):
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        for each in ("cat/1", "dog/1", name):
            tar.addfile(tarfile.TarInfo(each), io.BytesIO())
    with pytest.raises(UserError, match=sentence):
        open_folder(tmp_path / "pets.tar")


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path):
    write(tmp_path, "cat/1", "dog/1")
    (tmp_path / "cat" / "caf\udce9.png").write_text("latin1")
    with pytest.raises(UserError, match="not UTF-8"):
        open_folder(tmp_path)


def test_what_cannot_be_an_image_file_is_unreadable(tmp_path: Path):
    write(tmp_path, "cat/1", "dog/1")
    (tmp_path / "cat" / "2.png").symlink_to(tmp_path / "nowhere")
    source = open_folder(tmp_path)
    assert source.names == ("cat/1", "dog/1")
    assert [(file.name, file.reason) for file in source.unreadable] == [("cat/2.png", "a link to nothing")]
