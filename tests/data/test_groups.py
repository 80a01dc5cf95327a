import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, read_info, read_split
from vit_vs_cnn.data.groups import shared_groups, with_groups
from vit_vs_cnn.data.prepare import prepare
from vit_vs_cnn.data.sources.source import Source

PATTERN = r"patient_(\d+)"


def data_settings(path: Path, **changes: object) -> DataSettings:
    values = {"source": "folder", "name": "scans", "path": str(path), "image_size": 8, "groups": PATTERN}
    return DataSettings.model_validate(values | changes)


def write_scans(folder: Path, patients: dict[str, range]) -> Path:
    """Three images of each patient in each of two classes; `patients` by split folder, "" for none."""
    rng = np.random.default_rng(0)
    for split, numbers in patients.items():
        for name in ("ill", "well"):
            (folder / split / name).mkdir(parents=True)
            for patient in numbers:
                for shot in range(3):
                    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / split / name / f"patient_{patient}_{shot}.png")
    return folder


def source_of(names: list[str], splits: list[int] | None = None, groups: tuple[str, ...] | None = None) -> Source:
    codes = np.array(splits or [0] * len(names))
    labels = np.zeros(len(names), np.int64)
    return Source("made up", ("a",), tuple(names), labels, codes, (), lambda: iter(()), groups=groups)


def test_the_pattern_finds_the_group_anywhere_in_the_path():
    source = with_groups(source_of(["ill/patient_3/1.png", "well/patient_12_b.png", "well/patient_3.png"]), PATTERN)
    assert source.groups == ("3", "12", "3")
    assert with_groups(source_of(["a.png"]), None).groups is None
    assert with_groups(source_of(["a.png"], groups=("7",)), None).groups == ("7",)


def test_an_image_that_the_pattern_does_not_match_is_named():
    with pytest.raises(UserError, match=r"does not match 2 of 3 images \(a/1\.png, b/patient_x\.png\): change"):
        with_groups(source_of(["a/1.png", "a/patient_1.png", "b/patient_x.png"]), PATTERN)
    with pytest.raises(UserError, match="does not match 1 of 1"):
        with_groups(source_of(["a/1.png"]), r"1|(x)")


def test_a_source_that_names_its_groups_needs_no_pattern():
    with pytest.raises(UserError, match=r"remove data\.groups"):
        with_groups(source_of(["patient_1.png"], groups=("7",)), PATTERN)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [("patient", "has 0"), (r"(a)(b)", "has 2"), ("(a", "not a regular expression")],
)
def test_a_pattern_needs_one_capturing_group(pattern: str, reason: str):
    with pytest.raises(ValidationError, match=reason):
        data_settings(Path("x"), groups=pattern)


def test_groups_in_more_than_one_given_split():
    source = source_of(["1", "2", "3", "4"], [0, 2, 1, 2], ("one", "one", "two", "three"))
    assert shared_groups(source) == ["one: train, test"]
    assert shared_groups(source_of(["1"])) == []


def test_groups_are_kept_whole_and_beside_the_images(tmp_path: Path):
    scans = write_scans(tmp_path / "scans", {"": range(30)})
    info, checks = prepare(data_settings(scans), tmp_path / "out")
    people = {name: set(read_split(tmp_path / "out", name).groups or ()) for name in PREPARED_SPLITS}
    assert set.union(*people.values()) == {str(patient) for patient in range(30)}
    assert sum(map(len, people.values())) == 30
    assert {name: part.groups for name, part in info.splits.items()} == {name: len(one) for name, one in people.items()}
    assert read_info(tmp_path / "out") == info
    test = read_split(tmp_path / "out", "test")
    assert [name.split("_")[1] for name in test.names] == list(test.groups or ())
    assert "carved by the names of their groups" in checks.notes[-1]


def test_without_groups_nothing_is_said_of_them(tmp_path: Path):
    scans = write_scans(tmp_path / "scans", {"": range(30)})
    prepare(data_settings(scans, groups=None), tmp_path / "out")
    assert read_split(tmp_path / "out", "test").groups is None
    assert "groups" not in json.loads((tmp_path / "out" / "dataset.json").read_text())["splits"]["test"]


def test_names_that_look_like_groups_are_noted_where_none_are_set(tmp_path: Path):
    scans = write_scans(tmp_path / "scans", {"": range(30)})
    _, checks = prepare(data_settings(scans, groups=None), tmp_path / "without")
    (finding,) = (found for found in checks.findings if found.kind == "possible_group")
    assert "no data.groups" in finding.sentence
    assert len(finding.examples) == min(finding.count, 50)
    _, checks = prepare(data_settings(scans), tmp_path / "with")
    assert not checks.counts["possible_group"]


def test_given_splits_that_share_a_group_stop_the_run_or_are_reported(tmp_path: Path):
    scans = write_scans(tmp_path / "scans", {"train": range(8), "val": range(8, 12), "test": range(7, 10)})
    with pytest.raises(UserError, match=r"data\.groups: 3 groups .* \(7: train, test; 8: val, test; 9: val, test\)"):
        prepare(data_settings(scans), tmp_path / "out")
    _, checks = prepare(data_settings(scans, on_bad="skip"), tmp_path / "out")
    (finding,) = (found for found in checks.findings if found.kind == "group_leakage")
    assert finding.sentence == "3 groups that images share are in more than one split."
    assert finding.examples == ("7: train, test", "8: val, test", "9: val, test")
