import os
import tarfile
import zipfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from image_folders import PNG, counts, write
from vit_vs_cnn.data.dataset import PREPARED_SPLITS
from vit_vs_cnn.data.sources.folder import open_folder

SPLIT_NAMES = [
    ("train", "val", "test"),
    ("training", "validation", "testing"),
    ("train", "valid", "test"),
    ("train_set", "dev_set", "test_set"),
    ("seg_train", "seg_val", "seg_test"),
    ("train_images", "val_images", "test_images"),
]
CLUTTER = [".DS_Store", "@eaDir/x.jpg", "._1.png", "Thumbs.db", ".ipynb_checkpoints/1.png", "desktop.ini"]
TOP_CLUTTER = ["__MACOSX/a/._1.png", "lost+found/1.png", "$RECYCLE.BIN/2.png", "System Volume Information/3.png"]


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[str], dict[str, dict[str, int]], int]:
    """The files of a layout, its truth as the number of images by split and class, and the number of other files."""
    names = draw(st.sampled_from(SPLIT_NAMES))
    change = draw(st.sampled_from([str, str.upper, str.title]))
    present = draw(st.sampled_from([(), ("train",), ("train", "test"), ("train", "val"), ("train", "val", "test")]))
    # What surrounds a split's word is told by a second one.
    if len(present) == 1 and "_" in names[0].replace("_set", ""):
        present = ()
    classes = draw(st.lists(st.sampled_from(["cat", "dog", "emu", "Zoo", "café", "1", "2"]), min_size=2, unique=True))
    wrapping = "".join(f"{name}/" for name in draw(st.lists(st.sampled_from(["data", "pets v2", "data"]), max_size=3)))
    files, truth, others = [], {}, 0
    for split in present or ("train",):
        folder = change(names[PREPARED_SPLITS.index(split)]) + "/" if present else ""
        truth[split] = {}
        for class_name in classes:
            truth[split][class_name] = draw(st.integers(1, 3))
            inside = f"{wrapping}{folder}{class_name}/"
            files += [f"{inside}{number}.png" for number in range(truth[split][class_name])]
            files += [
                f"{inside}{clutter}" for clutter in draw(st.lists(st.sampled_from(CLUTTER), max_size=2, unique=True))
            ]
            if draw(st.booleans()):
                files.append(f"{inside}README.txt")
                others += 1
    files += draw(st.lists(st.sampled_from(TOP_CLUTTER), max_size=2, unique=True))
    return files, truth, others


@given(
    layout=layouts(), kind=st.sampled_from(["folder", "tar", "zip", "windows"]), order=st.randoms(use_true_random=False)
)
@hypothesis_settings(max_examples=60)
def test_every_layout_is_read_as_it_is_meant(
    tmp_path_factory: pytest.TempPathFactory,
    layout: tuple[list[str], dict[str, dict[str, int]], int],
    kind: str,
    order: Any,
):
    files, truth, others = layout
    order.shuffle(files)
    folder = tmp_path_factory.mktemp("layout")
    path = write(folder / "pets", *files)
    if kind == "tar":
        path = folder / "pets.tar"
        with tarfile.open(path, "w") as tar:
            for name in files:
                tar.add(folder / "pets" / name, name)
    elif kind != "folder":
        path = folder / "pets.zip"
        with zipfile.ZipFile(path, "w") as zipped:
            for name in files:
                content = (folder / "pets" / name).read_bytes()
                zipped.writestr(name.replace("/", "\\") if kind == "windows" else name, content)
    before = sorted(os.walk(folder))
    source = open_folder(path)
    assert counts(source) == truth
    assert dict(source.read()) == dict.fromkeys(range(len(source.names)), PNG)
    assert not source.unreadable
    assert not source.stray
    assert sum(f"{others:,} files in class folders are no images" in note for note in source.notes) == bool(others)
    assert sorted(os.walk(folder)) == before
