import os
import shlex
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from image_folders import write
from vit_vs_cnn.cli.data import data, data_name
from vit_vs_cnn.config.load import parse_data_settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.prepare import open_source


def look(*arguments: str) -> Result:
    return CliRunner().invoke(data, arguments, standalone_mode=False, catch_exceptions=False)


BRAIN = [
    f"{split}/{name}/{number}.png"
    for split, share in (("Training", 2), ("Testing", 1))
    for name, count in (("glioma", 4), ("pituitary", 1))
    for number in range(share * count)
]


def test_the_look_shows_counts_notes_hints_and_the_settings_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write(tmp_path / "Brain Tumour (v2)", *BRAIN, "Training/glioma/@eaDir/1.png", "x.png")
    (folder / "Testing/glioma/README.txt").write_text("words")
    monkeypatch.chdir(tmp_path)
    before = sorted(os.walk(tmp_path))
    output = look(str(folder)).output
    lines = output.splitlines()
    assert lines[0] == "image folder Brain Tumour (v2): 15 images, 2 classes"
    rows = [line.split() for line in lines[2:7]]
    assert rows[0] == ["class", "train", "test"]
    assert rows[2:] == [["glioma", "8", "4"], ["pituitary", "2", "1"], ["all", "10", "5"]]
    assert [line.partition(":")[2] for line in lines if line.startswith("note: ")] == [
        " Read as split folders with class folders: train in Training/, test in Testing/; val is taken from train.",
        " 1 files in class folders are no images and are passed over: Testing/glioma/README.txt.",
        " 1 hidden files or folders of systems are passed over: @eaDir (1).",
        " 1 files lie outside the class folders, the first x.png.",
    ]
    assert "hint: glioma has 8 training images, 4.0 times as many as " in output
    words = shlex.split(lines[-1].removeprefix("settings:"))
    assert words[::2] == ["--set"] * 3
    assert words[1::2] == ["data.source=folder", f"data.path={folder}", "data.name=brain-tumour-v2"]
    assert sorted(os.walk(tmp_path)) == before


def test_the_settings_of_the_last_line_read_the_same(tmp_path: Path):
    names = [f"{site}/{name}/1.png" for site in ("north", "south") for name in ("a", "b")]
    folder = write(tmp_path / "sites", *names)
    with pytest.raises(UserError, match=r"if the classes are a, b, set data\.class_level: 2"):
        look(str(folder))
    output = look(str(folder), "--set", "data.class_level=2", "--set", "data.name=mine").output
    overrides = shlex.split(output.splitlines()[-1].removeprefix("settings:"))[1::2]
    assert overrides[-2:] == ["data.name=mine", "data.class_level=2"]
    source = open_source(parse_data_settings({}, overrides))
    assert source.classes == ("a", "b")
    output = look(str(folder), "--set", "data.splits={train: north, test: south}").output
    assert "train in north/, test in south/" in output


def test_a_table_is_looked_at_by_its_suffix(tmp_path: Path):
    write(tmp_path, "1.png", "2.png")
    (tmp_path / "list.csv").write_text("image,label\n1.png,cat\n2.png,dog\n")
    with pytest.raises(UserError, match=r"none of the .* images in the tables"):
        look(str(tmp_path / "list.csv"))
    output = look(str(tmp_path), "--set", "data.source=table").output
    assert "--set data.source=table --set data.path=" in output
    assert output.startswith("images listed in list.csv: 2 images, 2 classes")


def test_a_name_that_a_terminal_would_obey_is_shown(tmp_path: Path):
    folder = write(tmp_path / "pets", "cat\x1b[31m/1.png", "dog/sub/1.png", "x\x1b.png")
    assert "\x1b" not in look(str(folder)).output


def test_an_archive_is_looked_at_in_place(tmp_path: Path):
    folder = write(tmp_path / "pets", "cat/1.png", "dog/1.png", "dog/2.png")
    with tarfile.open(tmp_path / "pets.tar.gz", "w:gz") as tar:
        tar.add(folder, "pets")
    output = look(str(tmp_path / "pets.tar.gz")).output
    assert "note: Read as class folders in pets/, without split folders; val and test are taken from train." in output
    assert output.strip().endswith("--set data.name=pets")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.epochs=3", "--set train: only settings below data say how images are read."),
        ("data.class_level=0", "data: class_level: input should be greater than or equal to 1, got 0."),
        ("data.splits={test: x}", "data: splits.train: is missing."),
        ("data.splits={train: ../x}", "data: splits.train: expected a folder within data.path"),
        ("data.splits={train: x, dev: y}", "data: splits.dev: is not a known setting."),
    ],
)
def test_a_bad_setting_is_one_sentence(tmp_path: Path, override: str, sentence: str):
    with pytest.raises(UserError) as error:
        look(str(write(tmp_path, "cat/1.png", "dog/1.png")), "--set", override)
    assert str(error.value).startswith(sentence)


def test_nothing_there_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere does not exist: name a folder of images"):
        look(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/Pets.zip", "pets"), ("Ä pets.tar.gz", "a-pets"), ("v1.2/", "v1"), ("日本", "images"), ("_x_", "x")],
)
def test_the_name_of_the_data_comes_from_the_path(path: str, name: str):
    assert data_name(path) == name
