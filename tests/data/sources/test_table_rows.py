from pathlib import Path
from typing import Any

import pytest

from table_factories import PETS, placed, settings, write_images, write_table
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.prepare import open_source


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Three images beside which a test writes its tables."""
    return write_images(tmp_path / "pets", "a.png", "b.png", "c.png")


def test_numbers_sort_as_numbers_and_names_by_code_points(pets: Path):
    for labels, classes in (("10 9 10", ("9", "10")), ("b B a10", ("B", "a10", "b"))):
        rows = [row | {"label": label} for row, label in zip(PETS, labels.split(), strict=True)]
        write_table(pets / "labels.csv", rows)
        assert open_source(settings(pets)).classes == classes


def test_class_names_stand_for_labels_and_may_join_them(pets: Path):
    rows = [row | {"label": label} for row, label in zip(PETS, (2, 0, 1), strict=True)]
    write_table(pets / "labels.csv", rows)
    names: dict[str | int, str] = {0: "wolf", 1: "dog", "2": "dog"}
    source = open_source(settings(pets, class_names=names))
    assert source.classes == ("wolf", "dog")
    assert source.labels.tolist() == [1, 0, 1]
    with pytest.raises(UserError, match=r"data\.class_names: has no name for the label '1'"):
        open_source(settings(pets, class_names={0: "cat", 2: "dog"}))


def test_columns_of_zeros_and_ones_are_classes(pets: Path):
    rows = [{"image": "a", "MEL": 1.0, "NV": 0.0}, {"image": "b", "MEL": 0.0, "NV": 1.0}, {"image": "c", "NV": 1.0}]
    write_table(pets / "truth.jsonl", [{"MEL": 0.0} | row for row in rows])
    source = open_source(settings(pets))
    assert source.classes == ("MEL", "NV")
    assert source.labels.tolist() == [0, 1, 1]
    write_table(pets / "truth.jsonl", [{"MEL": 0, "male": 1} | row for row in rows])
    with pytest.raises(UserError, match=r"several ones in row 1 \(MEL, male\).*data\.columns: {label: \[MEL, …\]}"):
        open_source(settings(pets))
    assert open_source(settings(pets, columns={"label": ["MEL", "NV"]})).classes == ("MEL", "NV")


@pytest.mark.parametrize(
    "label", ["cat|dog", ["cat", "dog"], "cat,dog", "dog; cat", "['cat', 'dog']", '["emu", "fox"]']
)
def test_several_labels_of_an_image_are_refused(pets: Path, label: object):
    write_table(pets / "labels.jsonl", [*PETS[:2], PETS[2] | {"label": label}])
    with pytest.raises(UserError, match=r"gives an image several labels.*keep the rows with one label"):
        open_source(settings(pets))


def test_a_name_with_a_comma_is_a_class_unless_its_parts_are_classes(pets: Path):
    labels = ["tench, Tinca tinca", "goldfish", "tench"]
    write_table(pets / "labels.csv", [row | {"label": label} for row, label in zip(PETS, labels, strict=True)])
    assert open_source(settings(pets)).classes == ("goldfish", "tench", "tench, Tinca tinca")
    labels[1] = "Tinca tinca"
    write_table(pets / "labels.csv", [row | {"label": label} for row, label in zip(PETS, labels, strict=True)])
    with pytest.raises(UserError, match=r"gives an image several labels \(tench, Tinca tinca\)"):
        open_source(settings(pets))


def test_columns_can_be_named(pets: Path):
    rows = [
        {"scan": row["file_name"], "finding": row["label"], "part": part, "patient": patient, "label": "?"}
        for row, part, patient in zip(PETS, ("Training", "valid", "TEST"), ("p1", "p1", ""), strict=True)
    ]
    write_table(pets / "labels.csv", rows)
    columns = {"image": "scan", "label": "finding", "split": "part", "group": "patient"}
    source = open_source(settings(pets, columns=columns))
    assert placed(source) == [("train", "dog", "a.png"), ("val", "cat", "b.png"), ("test", "dog", "c.png")]
    assert source.groups == ("p1", "p1", "c.png")
    assert source.missing == ()


@pytest.mark.parametrize(
    ("rows", "columns", "sentence"),
    [
        (
            {"picture": "a", "label": "x"},
            {},
            "no column with a usual name for the image; its columns are picture, label",
        ),
        (
            {"image": "a", "kind": "x"},
            {},
            r"usual name for the label.* name the right one, `data.columns: {label: NAME}`",
        ),
        (
            {"image": "a", "label": "x", "class": "y"},
            {},
            "2 columns that could be the label; its columns are image, label",
        ),
        (
            {"image": "a", "path": "x", "label": "y"},
            {},
            r"2 columns that could be the image.*`data.columns: {image: image}`",
        ),
        ({"image": "a", "label": "x"}, {"group": "who"}, "has no column 'who'; its columns are image, label"),
        ({"image": "a", "label": "x", "s": "fold1"}, {"split": "s"}, r"no split \('fold1'\): write train, val or test"),
        ({"image": "a", "label": ""}, {}, "no row has a label"),
    ],
)
def test_a_column_that_is_not_clear_is_one_sentence(pets: Path, rows: Any, columns: object, sentence: str):
    write_table(pets / "labels.csv", [rows])
    with pytest.raises(UserError, match=sentence):
        open_source(settings(pets, columns=columns))


def test_a_column_set_without_splits_is_not_read_as_splits(pets: Path):
    write_table(pets / "labels.csv", [row | {"set": "A"} for row in PETS])
    source = open_source(settings(pets))
    assert source.missing == ("test", "val")
    assert source.notes == ("labels.csv: column set has values that are no split ('A'): not read as splits",)


def test_the_names_of_the_tables_say_the_split_and_others_are_passed_over(pets: Path):
    write_images(pets, "d.png")
    write_table(pets / "train_labels.csv", PETS[:2])
    write_table(pets / "validation.csv", PETS[2:])
    write_table(pets / "test.csv", [{"file_name": "d.png"}])
    source = open_source(settings(pets))
    assert placed(source) == [("train", "dog", "a.png"), ("train", "cat", "b.png"), ("val", "dog", "c.png")]
    assert source.missing == ("test",)
    assert len(source.notes) == 1
    assert "passed over: test.csv has no column" in source.notes[0]
    assert source.row_findings["unlisted_file"] == ("d.png",)


def test_words_joined_by_capitals_in_the_names_of_the_tables_say_the_split(pets: Path):
    write_table(pets / "trainLabels.csv", PETS[:2])
    write_table(pets / "testLabels.csv", PETS[2:])
    expected = [("test", "dog", "c.png"), ("train", "dog", "a.png"), ("train", "cat", "b.png")]
    assert placed(open_source(settings(pets))) == expected


@pytest.mark.parametrize("name", ["sample_submission.csv", "sampleSubmission.csv"])
def test_a_form_for_the_answers_of_a_competition_gives_no_labels(pets: Path, name: str):
    write_table(pets / "labels.csv", PETS[:2])
    write_table(pets / name, [{"file_name": "c.png", "label": "cat"}])
    source = open_source(settings(pets))
    assert placed(source) == [("train", "dog", "a.png"), ("train", "cat", "b.png")]
    (note,) = source.notes
    assert note.startswith(f"passed over: {name} is a form for the answers of a competition")
    assert source.row_findings["unlisted_file"] == ("c.png",)


def test_the_folders_of_tables_and_images_say_the_split(tmp_path: Path):
    write_images(tmp_path, "train/a.png", "train/b.png", "test/c.png")
    for split, rows in (("train", PETS[:2]), ("test", PETS[2:])):
        write_table(tmp_path / split / "metadata.csv", rows)
    expected = [("test", "dog", "test/c.png"), ("train", "dog", "train/a.png"), ("train", "cat", "train/b.png")]
    assert placed(open_source(settings(tmp_path))) == expected
    for split in ("train", "test"):
        (tmp_path / split / "metadata.csv").unlink()
    write_table(tmp_path / "metadata.csv", [{"file_name": name, "label": label} for _, label, name in expected])
    assert placed(open_source(settings(tmp_path))) == expected


def test_splits_for_some_images_only_are_refused(pets: Path):
    write_table(pets / "train.csv", PETS[:2])
    write_table(pets / "all.csv", PETS[2:])
    with pytest.raises(UserError, match=r"1 of the 3 images.*have no split \(the first: c\.png\)"):
        open_source(settings(pets))
    (pets / "all.csv").unlink()
    (pets / "train.csv").rename(pets / "test.csv")
    with pytest.raises(UserError, match=r"no image listed in .* is for train"):
        open_source(settings(pets))
