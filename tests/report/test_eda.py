import csv
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import EDA, PREPARED
from vit_vs_cnn.data.checks import Checks, Finding, ImageRef, Kind, read_checks, write_checks
from vit_vs_cnn.data.dataset import (
    PREPARED_SPLITS,
    DatasetInfo,
    Split,
    SplitInfo,
    SplitName,
    read_info,
    read_split,
    write_info,
    write_split,
)
from vit_vs_cnn.report.eda import write_eda
from vit_vs_cnn.stages import eda

MakeSettings = Callable[..., Settings]


def prepare(images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Sequence[str], checks: Checks) -> None:
    """The same images as train and val in data/prepared; test has counts but no arrays: opening it is an error."""
    names = [f"train/{classes[label]}/{i:04d}.png" for i, label in enumerate(labels)]
    counts = tuple(np.bincount(labels, minlength=len(classes)).tolist())
    splits: dict[SplitName, SplitInfo] = {}
    for split in PREPARED_SPLITS:
        digest = write_split(PREPARED / split, images, labels, names)
        splits[split] = SplitInfo(images=len(labels), counts=counts, digest=digest)
    shutil.rmtree(PREPARED / "test")
    info = DatasetInfo(
        name="tiny",
        source="folder",
        description="noise",
        classes=tuple(classes),
        image_size=images.shape[1],
        split_seed=0,
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
        splits=splits,
        digest="0",
    )
    write_info(PREPARED, info)
    write_checks(PREPARED, checks)


def checks_with(*findings: Finding) -> Checks:
    counts = {"duplicate": 0, "near_duplicate": 0} | {finding.kind: finding.count for finding in findings}
    return Checks(images=1, counts=counts, findings=findings)


def finding_of(*places: tuple[SplitName, int], kind: Kind = "duplicate") -> Finding:
    group = tuple(ImageRef(split=split, row=row, class_name="cat", name=f"cat/{row}.png") for split, row in places)
    return Finding(kind=kind, severity="warning", count=1, sentence="1 group of identical images.", groups=(group,))


def noise(count: int, side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def analyse(settings: Settings) -> None:
    splits: dict[SplitName, Split] = {"train": read_split(PREPARED, "train"), "val": read_split(PREPARED, "val")}
    write_eda(settings.recipe.augment, read_info(PREPARED), splits, read_checks(PREPARED), EDA)


def table(name: str) -> dict[str, list[str]]:
    with (EDA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return {column[0]: list(column[1:]) for column in zip(*rows, strict=True)}


def figures() -> dict[str, dict[str, str]]:
    contents = json.loads((EDA / "figures.json").read_text(encoding="utf-8"))
    return {figure["file"]: figure for figure in contents["figures"]}


def skipped() -> str:
    return " ".join(json.loads((EDA / "figures.json").read_text(encoding="utf-8"))["skipped"])


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def size_of(picture: Path) -> tuple[float, float]:
    """Width and height in pixels."""
    if picture.suffix == ".svg":
        width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', picture.read_text())[0]
        return float(width), float(height)
    height, width, _ = cv2.imread(str(picture)).shape
    return width, height


def test_every_figure_has_its_words_and_the_numbers_behind_it(make_settings: MakeSettings) -> None:
    images, labels = noise(60, 16), np.arange(60) % 3
    images[7] = 255
    prepare(images, labels, ("cat", "dog", "emu"), checks_with(finding_of(("train", 3), ("val", 3))))
    analyse(make_settings({"recipe": {"augment": {"flip": 0.5}}}))

    shown = figures()
    assert set(shown) == {path.name for kind in ("png", "svg") for path in EDA.glob(f"*.{kind}")}
    assert {Path(file).stem for file in shown} == {
        "class_distribution", "samples", "augmentation", "colour_histogram", "channel_correlation", "mean_images",
        "brightness", "contrast", "sharpness", "outliers", "duplicates",
    }  # fmt: skip
    for file, figure in shown.items():
        assert figure["title"]
        assert figure["alt"]
        assert figure["caption"].endswith(".")
        assert (EDA / file).with_suffix(".csv").is_file()
        assert min(size_of(EDA / file)) > 50
    assert skipped() == ""
    assert shown["class_distribution.svg"]["alt"] == "3 classes with 20 to 20 training images"

    assert table("class_distribution") == {
        "class": ["cat", "dog", "emu"], **{split: ["20"] * 3 for split in PREPARED_SPLITS}
    }  # fmt: skip
    histogram = table("colour_histogram")
    assert [int(count) for count in histogram["blue"]] == np.bincount(images[..., 2].ravel()).tolist()
    measured = table("images")
    assert measured["file"][7] == "train/dog/0007.png"
    assert [float(measured[name][7]) for name in ("brightness", "contrast", "sharpness")] == [255, 0, 0]
    outliers = table("outliers")
    brightest = outliers["measure"].index("brightness")
    assert (outliers["file"][brightest], outliers["class"][brightest]) == ("train/dog/0007.png", "dog")
    assert table("duplicates")["split"] == ["train", "val"]

    summary = json.loads((EDA / "summary.json").read_text(encoding="utf-8"))
    assert all(isinstance(value, int | float) for value in summary.values())
    assert (summary["classes"], summary["test_images"], summary["imbalance_ratio"]) == (3, 60, 1)
    assert summary["found_duplicate"] == 1
    assert summary["mean_green"] == pytest.approx(images[..., 1].mean(), abs=1e-3)


@pytest.mark.parametrize(("classes", "side"), [(2, 8), (200, 130)])
def test_any_number_of_classes_and_any_size(classes: int, side: int, make_settings: MakeSettings) -> None:
    # The last class is empty, the others have two images or three.
    labels = np.sort(np.arange(max(2 * classes, 9)) % (classes - 1))
    prepare(
        noise(len(labels), side),
        labels,
        [f"a class with a rather long name {k}" for k in range(classes)],
        checks_with(),
    )
    analyse(make_settings())
    for file in figures():
        width, height = size_of(EDA / file)
        assert width <= 1100, file
        assert height <= 2600, file
    assert len(table("class_distribution")["class"]) == classes
    assert len(table("brightness")["median"]) == classes
    assert set(table("samples")["class"]) <= set(table("class_distribution")["class"][:20])


def test_images_that_are_all_alike(make_settings: MakeSettings) -> None:
    prepare(np.full((12, 8, 8, 3), 90, np.uint8), np.arange(12) % 2, ("cat", "dog"), checks_with())
    analyse(make_settings())
    assert "outliers.png" not in figures()
    assert "Outliers" in skipped()
    assert table("channel_correlation")["red"] == ["nan"] * 3


def test_what_cannot_be_shown_is_said(make_settings: MakeSettings) -> None:
    prepare(noise(12, 8), np.arange(12) % 2, ("cat", "dog"), checks_with(finding_of(("train", 3), ("test", 5))))
    off = {"flip": 0.0, "translate": 0.0}
    analyse(make_settings({"recipe": {"augment": off}}))
    assert {"augmentation.png", "duplicates.png"}.isdisjoint(figures())
    assert "recipe.augment" in skipped()
    assert "test is not looked at" in skipped()
    assert table("duplicates")["split"] == ["train", "test"], "the names are known without opening test"


@pytest.mark.parametrize(("other", "is_shown"), [("val", True), ("train", False)])
def test_what_two_splits_share_is_shown_with_an_image_of_each(
    other: SplitName, is_shown: bool, make_settings: MakeSettings
) -> None:
    shared = finding_of(("train", 3), ("train", 4), (other, 2), ("test", 5), kind="near_leakage")
    prepare(noise(12, 8), np.arange(12) % 2, ("cat", "dog"), checks_with(shared))
    analyse(make_settings())
    assert ("duplicates.png" in figures()) == is_shown


def test_the_notes_of_prepare_stand_below_the_samples(make_settings: MakeSettings) -> None:
    checks = checks_with().model_copy(update={"notes": ("data.fit: crop discards 25% of {everything}.", "Two.")})
    prepare(noise(12, 8), np.arange(12) % 2, ("cat", "dog"), checks)
    analyse(make_settings())
    assert figures()["samples.png"]["caption"].endswith("data.fit: crop discards 25% of {everything}. Two.")


def test_the_augmentation_figure_also_shows_mixed_images(make_settings: MakeSettings) -> None:
    prepare(noise(12, 8), np.arange(12) % 2, ("cat", "dog"), checks_with())
    analyse(make_settings({"recipe": {"augment": {"mixup": 0.8, "cutmix": 1.0}}}))
    caption = figures()["augmentation.png"]["caption"]
    assert "mixed" in caption
    assert "cutmix 1" in caption


def test_the_split_seed_decides_everything(settings: Settings) -> None:
    prepare(noise(90, 8), np.arange(90) % 2, ("cat", "dog"), checks_with())

    def contents(seed: int) -> dict[str, bytes]:
        write_info(PREPARED, read_info(PREPARED).model_copy(update={"split_seed": seed}))
        analyse(settings)
        return {path.name: path.read_bytes() for path in EDA.iterdir()}

    first = contents(1)
    assert contents(1) == first
    assert contents(2)["samples.csv"] != first["samples.csv"]


@pytest.mark.usefixtures("project")
def test_the_stage_leaves_the_test_split_closed(make_settings: MakeSettings) -> None:
    prepare(noise(12, 8), np.arange(12) % 2, ("cat", "dog"), checks_with())
    eda.run(make_settings())
    assert table("class_distribution")["test"] == ["6", "6"]
