import unicodedata
from pathlib import Path
from typing import Any

import pytest

from image_folders import counts, write
from vit_vs_cnn.config.data import SplitFolders
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.sources.folder import open_folder
from vit_vs_cnn.data.sources.source import Source

DECOMPOSED = unicodedata.normalize("NFD", "café")


def classes_in(*folders: str, names: str = "ab") -> list[str]:
    return [f"{folder}/{name}/{number}.png" for folder in folders for name in names for number in (1, 2)]


def note(source: Source, begin: str) -> str:
    (found,) = [note for note in source.notes if note.startswith(begin)]
    return found


PAIR = {"a": 2, "b": 2}


@pytest.mark.parametrize(
    "folders",
    [
        {"train": "Training", "test": "Testing"},
        {"train": "Train", "test": "Test"},
        {"train": "TRAIN", "val": "VAL"},
        {"train": "train", "val": "validation"},
        {"train": "train", "val": "valid", "test": "test"},
        {"train": "train", "val": "Val"},
        {"train": "train", "val": "dev"},
        {"train": "training_set", "test": "test_set"},
        {"train": "trainset", "test": "TestSet"},
        {"train": "seg_train/seg_train", "test": "seg_test/seg_test"},
        {"train": "train_images", "test": "test_images"},
        {"train": "Train_png", "val": "Val_png", "test": "Test_png"},
        {"train": "train2017", "val": "val2017"},
        {"train": "data/data/train", "test": "data/data/test"},
        {"train": "train/images", "test": "test/images"},
        {"train": "Training"},
    ],
)
def test_split_folders_are_read_by_the_names_that_people_give_them(tmp_path: Path, folders: dict[str, str]):
    source = open_folder(write(tmp_path, *classes_in(*folders.values())))
    assert counts(source) == dict.fromkeys(folders, PAIR)
    assert set(source.missing) == {"train", "val", "test"} - folders.keys()
    for split, folder in folders.items():
        assert f"{split} in {folder}/" in note(source, "Read as split folders")


@pytest.mark.parametrize("names", [("train_station", "airport"), ("test_tube", "flask"), ("trains", "contests")])
def test_a_class_with_the_word_of_a_split_in_its_name_is_a_class(tmp_path: Path, names: tuple[str, ...]):
    source = open_folder(write(tmp_path, *(f"{name}/1.png" for name in names)))
    assert source.classes == tuple(sorted(names))


AMBIGUOUS: list[tuple[list[str], list[str]]] = [
    # What is there, and what the sentence says: both readings, and the setting for each.
    (
        classes_in("test", "val"),
        ["has test/ but no train/", "data.splits: {train: …, val: val, test: test}", "data.splits: {train: .}"],
    ),
    (classes_in("Testing"), ["has Testing/ but no train/", "data.splits: {train: Testing}"]),
    (
        classes_in("train", "test", "extra"),
        [
            "has extra/ beside test/, train/",
            "{train: train, test: test}",
            "extra, test, train are classes",
            "{train: .}",
        ],
    ),
    (["train/1.png", "car/1.png", "bus/1.png"], ["has bus/ beside train/", "if bus, car, train are classes"]),
    (classes_in("train", "Train"), ["has both Train/, train/ for train", "{train: .}"]),
    (classes_in("train", "val", "dev"), ["has both dev/, val/ for val"]),
    (
        [*classes_in("seg_train"), "seg_pred/1.png"],
        ["seg_train/ with folders in it beside seg_pred/", "{train: seg_train}"],
    ),
    (["train_1/1.png", "train_2/1.png"], ["no folder that is clearly train/", "if train_1, train_2 are classes"]),
    (["train_cat/1.png", "train_dog/1.png", "test_cat/1.png", "test_dog/1.png"], ["has both", "for test"]),
    (
        classes_in("site1", "site2"),
        [
            "same folders (a, b) in each of site1/, site2/",
            "site1, site2, set data.class_level: 1",
            "a, b, set data.class_level: 2",
            "{train: site1, test: site2}",
        ],
    ),
    (classes_in("2023", "2024", "2025"), ["if the classes are 2023, 2024, 2025, set data.class_level: 1"]),
    (
        ["north/x/cat/1.png", "north/y/dog/1.png", "south/z/cat/1.png"],
        ["same folders (cat)", "cat, dog, set data.class_level: 3"],
    ),
    (classes_in("train/site1", "train/site2"), ["same folders (a, b)", "{train: train/site1, test: train/site2}"]),
    (classes_in("cat", "dog", names=["train", "test"]), ["put the splits above the classes", "data.class_level: 1"]),
    (
        [*classes_in("set", names="abc"), "set/set/a/9.png", "set/set/b/1.png"],
        ["twice, in set/set/", "{train: set/set}"],
    ),
    (["train/1.png", "train/2.png", "test/1.png"], ["no class folders in train/"]),
]


@pytest.mark.parametrize(("names", "parts"), AMBIGUOUS)
def test_folders_that_can_be_read_in_two_ways_are_one_sentence_with_both(
    tmp_path: Path, names: list[str], parts: list[str]
):
    with pytest.raises(UserError) as error:
        open_folder(write(tmp_path, *names))
    for part in parts:
        assert part in str(error.value)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "settings", "expected"),
    [
        (classes_in("site1", "site2"), {"class_level": 2}, {"train": {"a": 4, "b": 4}}),
        (classes_in("site1", "site2"), {"class_level": 1}, {"train": {"site1": 4, "site2": 4}}),
        (
            classes_in("site1", "site2"),
            {"splits": {"train": "site1", "test": "./site2/"}},
            {"train": PAIR, "test": PAIR},
        ),
        (["train/1.png", "car/1.png"], {"splits": {"train": "."}}, {"train": {"train": 1, "car": 1}}),
        (
            classes_in("train", "test"),
            {"splits": {"train": "."}, "class_level": 2},
            {"train": {"a": 4, "b": 4}},
        ),
        (
            classes_in("train", "test", "extra"),
            {"splits": {"train": "train", "val": "extra"}},
            {"train": PAIR, "val": PAIR},
        ),
        (
            classes_in("train/site1", "train/site2", "test/site3"),
            {"class_level": 2},
            {"train": {"a": 4, "b": 4}, "test": PAIR},
        ),
        (["animal/cat/1.png", "plant/oak/1.png"], {"class_level": 2}, {"train": {"cat": 1, "oak": 1}}),
        (classes_in("north/x", "south/y"), {"class_level": 3}, {"train": {"a": 4, "b": 4}}),
    ],
)
def test_the_settings_decide(tmp_path: Path, names: list[str], settings: dict[str, Any], expected: dict[str, Any]):
    splits = settings.get("splits")
    source = open_folder(
        write(tmp_path, *names), SplitFolders(**splits) if splits else None, settings.get("class_level")
    )
    assert counts(source) == expected
    assert source.stray == ()


def test_what_the_settings_name_must_be_there_and_apart(tmp_path: Path):
    folder = write(tmp_path, *classes_in("all/old", "all/new"))
    with pytest.raises(UserError, match=r"data\.splits\.train: .* no folder all/nwe: all/ holds new/, old/\."):
        open_folder(folder, SplitFolders(train="all/nwe"))
    with pytest.raises(UserError, match=r"test \(all/new/\) lies in train \(all/\)"):
        open_folder(folder, SplitFolders(train="all", test="all/new"))
    with pytest.raises(UserError, match=r"no folders with images at level 3 of all/"):
        open_folder(folder, class_level=3)
    source = open_folder(folder, SplitFolders(train="all/old"))
    assert note(source, "4 images outside the folders in data.splits")
    for path in ("/tmp", "../x", "a/../../x", ""):
        with pytest.raises(ValueError, match="expected a folder within"):
            SplitFolders(train=path)


def test_files_beside_the_folders_in_the_settings_count_as_images_only_if_they_are(tmp_path: Path):
    folder = write(tmp_path, *classes_in("old", "new"), "notes.txt", "list.csv")
    source = open_folder(folder, SplitFolders(train="old", test="new"))
    assert not [note for note in source.notes if "images outside" in note]
    assert source.stray == ("list.csv", "notes.txt")
    source = open_folder(write(folder, "extra.png"), SplitFolders(train="old", test="new"))
    assert note(source, "1 images outside the folders in data.splits are skipped.")


def test_sub_folders_of_classes_are_said_with_the_other_reading(tmp_path: Path):
    source = open_folder(write(tmp_path, "animal/cat/1.png", "animal/dog/1.png", "plant/oak/1.png", "stone/1.png"))
    assert source.classes == ("animal", "plant", "stone")
    assert note(source, "2 class folders have sub-folders (animal/ has cat/, dog/)").endswith("data.class_level: 2.")
    same = open_folder(write(tmp_path / "same", "cat/images/1.png", "dog/images/1.png"))
    assert same.classes == ("cat", "dog")


def test_folders_without_classes_beside_splits_are_skipped_and_said(tmp_path: Path):
    names = [*classes_in("train"), "test/1.png", "unlabelled/2.png", "labels/1.txt", "nothing/", "list.csv"]
    names.remove("train/a/1.png")
    source = open_folder(write(tmp_path, *names))
    assert counts(source) == {"train": {"a": 1, "b": 2}}
    assert source.missing == ("test", "val")
    assert source.stray == ("list.csv",)
    for begin in ("test/ is skipped: its images are in no class folders", "unlabelled/ is skipped: its images"):
        assert note(source, begin)
    for begin in ("labels/ is skipped: it holds no images", "nothing/ is skipped: it holds no images"):
        assert note(source, begin)


def test_a_table_beside_the_class_folders_is_said(tmp_path: Path):
    source = open_folder(write(tmp_path, "cat/1.png", "dog/1.png", "metadata.csv"))
    assert note(source, "Tables are not read (metadata.csv): if one has the labels, set data.source: table.")


def test_numbered_folders_beside_a_table_are_a_question(tmp_path: Path):
    folder = write(tmp_path, "HAM10000_images_part_1/1.png", "HAM10000_images_part_2/1.png", "HAM10000_metadata.csv")
    readings = r"set data\.source: table; if the folders are the classes, set data\.class_level: 1"
    with pytest.raises(UserError, match=readings):
        open_folder(folder)
    assert len(open_folder(folder, class_level=1).classes) == 2


def test_a_folder_of_labels_beside_split_folders_is_no_class(tmp_path: Path):
    names = [f"images/{name}" for name in classes_in("train", "val")]
    source = open_folder(write(tmp_path, *names, "labels/train/1.txt"))
    assert counts(source) == {"train": PAIR, "val": PAIR}
    with pytest.raises(UserError, match=r"1 class folders without images \(emu\)"):
        open_folder(write(tmp_path / "other", "cat/old/1.png", "cat/new/1.png", "emu/notes.txt"))


@pytest.mark.parametrize("inner", ["", "train/"])
def test_a_set_inside_a_copy_of_itself_is_read_once(tmp_path: Path, inner: str):
    names = [
        name for split in ({"train/", "test/"} if inner else {""}) for name in classes_in(f"{split}.", names="abc")
    ]
    source = open_folder(write(tmp_path, *(f"pets/{copy}{name}" for copy in ("", "pets/") for name in names)))
    assert sum(counts(source)["train"].values()) == 6
    assert note(source, "pets/pets/ is skipped: its").endswith("images are a copy of those beside it.")


def test_empty_class_folders_and_splits_fail_or_are_skipped(tmp_path: Path):
    folder = write(tmp_path, *classes_in("train"), "train/c/", "train/d/notes.txt", "test/")
    with pytest.raises(UserError, match=r"has test/ without images"):
        open_folder(folder)
    (folder / "test").rmdir()
    with pytest.raises(UserError, match=r"2 class folders without images \(c, d\): .*data\.on_bad to skip"):
        open_folder(folder)
    (folder / "test").mkdir()
    source = open_folder(folder, on_bad="skip")
    assert source.classes == ("a", "b")
    assert note(source, "2 class folders hold no images and are skipped: c, d.")
    assert note(source, "test/ is skipped: it holds no images.")


def test_classes_that_differ_in_case_or_form_across_splits_are_one(tmp_path: Path):
    names = ["train/Cat/1", f"train/{DECOMPOSED}/1", "test/cat/1", "test/café/1", "train/Zoo/1"]
    source = open_folder(write(tmp_path, *names))
    assert counts(source) == {"train": {"Cat": 1, "café": 1, "Zoo": 1}, "test": {"Cat": 1, "café": 1}}
    assert source.classes == ("Cat", "Zoo", "café")
    assert "Cat (Cat, cat), café (" in note(source, "Class folders that differ only in case or Unicode form")


def test_classes_that_stand_side_by_side_are_never_joined(tmp_path: Path):
    source = open_folder(write(tmp_path / "one", "train/Cat/1", "train/cat/1", "test/cat/1"))
    assert counts(source) == {"train": {"Cat": 1, "cat": 1}, "test": {"cat": 1}}
    assert note(source, "Classes that differ only in case stay different classes: Cat and cat.")
    with pytest.raises(UserError, match=r"'CAT' in test/ but not in train/ \(which has Cat and cat, in another case\)"):
        open_folder(write(tmp_path / "two", "train/Cat/1", "train/cat/1", "test/CAT/1"))
    with pytest.raises(UserError, match=r"two folders 'café' in train, in two forms of Unicode"):
        open_folder(write(tmp_path / "three", "train/café/1", f"train/{DECOMPOSED}/1", "train/a/1"))


def test_classes_are_numbered_as_torchvision_numbers_them(tmp_path: Path):
    names = ["b", "B", "a10", "a9", "10", "9", "é", "_", DECOMPOSED]
    source = open_folder(write(tmp_path, *(f"{name}/1.png" for name in names)))
    assert source.classes == tuple(unicodedata.normalize("NFC", name) for name in sorted(names))
