from pathlib import Path

import numpy as np
import pytest

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.checks import Checks, Finding, check, read_checks, write_checks
from vit_vs_cnn.data.decode import DecodedImages
from vit_vs_cnn.data.sources.source import Source, Unreadable

CLASSES = ("cat", "dog", "emu")


def checked(decoded: DecodedImages, unreadable: tuple[Unreadable, ...] = (), stray: tuple[str, ...] = ()) -> Checks:
    source = Source(
        "made up", CLASSES, tuple(decoded.names), decoded.labels, decoded.splits, (), lambda: iter(()), (), stray
    )
    return check(decoded, source, unreadable, min_images_per_class=5)


def images_of(train: int = 18, val: int = 6, test: int = 6) -> DecodedImages:
    """Noise: every image another one, the classes in turn."""
    count = train + val + test
    return DecodedImages(
        images=np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8),
        labels=np.arange(count) % len(CLASSES),
        splits=np.repeat([0, 1, 2], [train, val, test]),
        names=[f"{position}.png" for position in range(count)],
        positions=np.arange(count),
    )


def found(checks: Checks, kind: str) -> Finding:
    (finding,) = [finding for finding in checks.findings if finding.kind == kind]
    assert checks.counts[finding.kind] == finding.count
    return finding


def places(finding: Finding) -> list[list[tuple[str, int, str, str]]]:
    return [[(image.split, image.row, image.class_name, image.name) for image in group] for group in finding.groups]


def test_clean_data_have_no_findings_and_every_count_is_zero():
    checks = checked(images_of())
    assert checks.findings == ()
    assert checks.test_rows_in_train == ()
    assert checks.images == 30
    assert set(checks.counts.values()) == {0}
    assert "leakage" in checks.counts


def test_identical_images_within_train():
    decoded = images_of()
    decoded.images[12] = decoded.images[3]
    checks = checked(decoded)
    assert places(found(checks, "duplicate")) == [[("train", 3, "cat", "3.png"), ("train", 12, "cat", "12.png")]]
    assert {kind for kind, count in checks.counts.items() if count} == {"duplicate"}


@pytest.mark.parametrize(("row", "place"), [(20, ("val", 2, "emu", "20.png")), (26, ("test", 2, "emu", "26.png"))])
def test_the_same_image_in_two_splits_is_leakage(row: int, place: tuple[str, int, str, str]):
    decoded = images_of()
    decoded.images[row] = decoded.images[2]
    checks = checked(decoded)
    assert places(found(checks, "leakage")) == [[("train", 2, "emu", "2.png"), place]]
    assert found(checks, "leakage").severity == "warning"
    assert {kind for kind, count in checks.counts.items() if count} == {"leakage"}


def test_identical_images_with_two_labels_conflict():
    decoded = images_of()
    decoded.images[4] = decoded.images[3]
    checks = checked(decoded)
    assert places(found(checks, "label_conflict")) == [[("train", 3, "cat", "3.png"), ("train", 4, "dog", "4.png")]]
    assert checks.counts["duplicate"] == 1


def test_nearly_identical_images_are_notes():
    decoded = images_of()
    decoded.images[3] = np.clip(decoded.images[0], 10, 245) - 10
    decoded.images[29] = np.clip(decoded.images[8], 10, 245) + 10
    checks = checked(decoded)
    assert places(found(checks, "near_duplicate")) == [[("train", 0, "cat", "0.png"), ("train", 3, "cat", "3.png")]]
    assert places(found(checks, "near_leakage")) == [[("train", 8, "emu", "8.png"), ("test", 5, "emu", "29.png")]]
    assert {finding.severity for finding in checks.findings} == {"note"}


def test_all_test_images_that_train_has_too_are_listed_identical_or_nearly_so():
    decoded = images_of(train=100, val=20, test=90)
    rows = decoded.rows("test")
    test = decoded.images[rows]
    test[:60] = decoded.images[:60]  # more than a finding shows
    test[70] = np.clip(decoded.images[80], 10, 245) - 10
    test[71] = test[70]  # identical to what is nearly identical
    decoded.images[105] = test[75]  # of val, which only a refit trains on
    test[76] = test[77]
    decoded.images[rows] = test
    checks = checked(decoded)
    assert (checks.test_rows_in_train, checks.test_rows_in_val) == ((*range(60), 70, 71), (75,))


def test_where_most_images_look_alike_that_is_one_finding_and_test_images_are_still_known():
    decoded = images_of(train=60, val=20, test=40)
    decoded.images[2:110] = decoded.images[0] ^ (decoded.images[2:110] & 1)
    decoded.images[40] = decoded.images[30]
    checks = checked(decoded)
    finding = found(checks, "look_alike")
    assert finding.sentence.startswith("108 of 119 different images are nearly identical to another:")
    assert [len(group) for group in finding.groups] == [10]
    assert checks.counts["near_duplicate"] == checks.counts["near_leakage"] == 0
    assert checks.test_rows_in_train == tuple(range(30))


def test_an_image_of_one_colour_is_constant():
    decoded = images_of()
    decoded.images[25] = (1, 2, 3)
    assert places(found(checked(decoded), "constant")) == [[("test", 1, "dog", "25.png")]]


def test_tiny_and_missing_classes_are_named():
    decoded = images_of(train=14, val=2, test=5)
    checks = checked(decoded)
    assert found(checks, "tiny_class").examples == ("emu: 4",)
    assert found(checks, "missing_class").examples == ("dog: val",)


def test_unreadable_and_stray_files_are_named():
    checks = checked(images_of(), (Unreadable("cat/1.png", "cut short"),), ("README.md",))
    assert found(checks, "unreadable").examples == ("cat/1.png: cut short",)
    assert found(checks, "stray_file").examples == ("README.md",)


def test_examples_are_limited_and_counts_are_not():
    decoded = images_of(train=300)
    decoded.images[100:200] = decoded.images[:100]
    decoded.images[200:230] = decoded.images[0]
    finding = found(checked(decoded), "duplicate")
    assert finding.count == 100
    assert len(finding.groups) == 50
    assert [len(group) for group in finding.groups] == [10] + [2] * 49


def test_checks_are_read_as_they_were_written(tmp_path: Path):
    decoded = images_of()
    decoded.images[12] = decoded.images[3]
    checks = checked(decoded, stray=("Übersicht.txt",))
    write_checks(tmp_path, checks)
    assert read_checks(tmp_path) == checks


def test_missing_or_foreign_checks_are_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match=r"checks\.json: does not exist; run `dvc repro --force prepare`"):
        read_checks(tmp_path)
    (tmp_path / "checks.json").write_text('{"images": 1}')
    with pytest.raises(UserError, match="another version; run `dvc repro --force prepare`"):
        read_checks(tmp_path)
