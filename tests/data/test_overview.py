import numpy as np
import pytest

from vit_vs_cnn.data.overview import class_table, hints, summary_lines
from vit_vs_cnn.data.sources.source import Source


def source(names: dict[str, list[str]], test: int = 0, notes: tuple[str, ...] = ()) -> Source:
    """Images of each class by their names, the last `test` of all in the test split."""
    labels = np.repeat(np.arange(len(names)), [len(files) for files in names.values()])
    splits = np.zeros(len(labels), np.int64)
    splits[len(labels) - test :] = 2
    return Source(
        "made up",
        tuple(names),
        tuple(f"{name}/{file}" for name, files in names.items() for file in files),
        labels,
        splits,
        ("val",) if test else ("test", "val"),
        lambda: iter(()),
        notes=notes,
    )


def other_hints(of: Source) -> list[str]:
    """Those that are not about how few the images are."""
    return [hint for hint in hints(of) if "images are few" not in hint]


def numbered(count: int) -> list[str]:
    return [f"{number:04}.png" for number in range(count)]


def test_the_table_has_a_row_for_each_class_and_a_column_for_each_split():
    lines = class_table(source({"cat": numbered(1200), "dog": numbered(5)}, test=3)).splitlines()
    assert [line.split() for line in (lines[0], *lines[2:])] == [
        ["class", "train", "test"],
        ["cat", "1,200", "0"],
        ["dog", "2", "3"],
        ["all", "1,202", "3"],
    ]


def test_the_summary_says_splits_classes_and_notes_in_few_lines():
    many = source({f"class{number:02}": numbered(3) for number in range(25)}, notes=("Read as class folders.",))
    first, second, third = summary_lines(many)
    assert first == "made up: train 75 images"
    assert second.startswith("25 classes (images in train): class00 3, class01 3, ")
    assert second.endswith("class19 3 and 5 more")
    assert third == "note: Read as class folders."


@pytest.mark.parametrize(("largest", "hinted"), [(30, False), (31, True)])
def test_classes_are_unbalanced_from_three_times_the_smallest(largest: int, hinted: bool):
    found = other_hints(source({"cat": numbered(10), "dog": numbered(largest)}))
    assert bool(found) == hinted
    if hinted:
        assert found[0].startswith("dog has 31 training images, 3.1 times as many as ")


@pytest.mark.parametrize(
    ("names", "begin", "groups"),
    [
        ([f"patient_{person}_{number:03}.png" for person in range(4) for number in range(6)], "patient_3", 8),
        ([f"scan-{person} ({number}).jpg" for person in range(4) for number in range(6)], "scan-3", 8),
        ([f"p{person}_{side}.png" for person in range(9) for side in ("left", "right")], "p8", 18),
    ],
)
def test_names_that_begin_alike_within_a_class_look_like_groups(names: list[str], begin: str, groups: int):
    (hint,) = other_hints(source({"well": names, "sick": names}))
    assert f"held {groups} groups, such as {len(names) // groups * 2} files like {begin}" in hint


@pytest.mark.parametrize(
    "names",
    [
        numbered(24),
        [f"cat.{number}.jpg" for number in range(24)],
        [f"IMG_{number}.JPG" for number in range(24)],
        [f"n01440764_{number}.JPEG" for number in range(24)],
        [f"scan_{number}_1.png" for number in range(24)],
        ["photo.png", *numbered(20), "a_1.png", "a_2.png", "b_1.png", "b_2.png"],
    ],
)
def test_numbers_alone_are_no_groups(names: list[str]):
    assert other_hints(source({"well": names, "sick": names})) == []


@pytest.mark.parametrize(("images", "test", "hinted"), [(999, 0, True), (1000, 0, False), (999, 10, False)])
def test_few_images_whose_test_split_is_carved_deserve_repeated_splits(images: int, test: int, hinted: bool):
    found = hints(source({"cat": numbered(images), "dog": numbered(images)}, test=test))
    assert [hint.partition(":")[0] for hint in found] == (["1,998 images are few"] if hinted else [])
