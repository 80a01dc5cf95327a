import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from vit_vs_cnn.config.schema import DataSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, read_split
from vit_vs_cnn.data.prepare import open_source, prepare
from vit_vs_cnn.data.sources.source import Source

Rows = list[dict[str, Any]]
PETS: Rows = [
    {"file_name": "a.png", "label": "dog"},
    {"file_name": "b.png", "label": "cat"},
    {"file_name": "c.png", "label": "dog"},
]


def settings(path: Path, **changes: object) -> DataSettings:
    values = {"source": "table", "name": "pets", "path": str(path), "image_size": 8, "min_images_per_class": 3}
    return DataSettings.model_validate(values | changes)


def write_table(path: Path, rows: Rows, metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist(rows)
        parquet.write_table(table.replace_schema_metadata(metadata), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def png(level: int = 0) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(content, "PNG")
    return content.getvalue()


def write_images(folder: Path, *names: str) -> Path:
    for level, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(level))
    return folder


def placed(source: Source) -> list[tuple[str, str, str]]:
    """Split, class and name of each image."""
    return [
        (PREPARED_SPLITS[split], source.classes[label], name)
        for split, label, name in zip(source.splits, source.labels, source.names, strict=True)
    ]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Three images beside which a test writes its tables."""
    return write_images(tmp_path / "pets", "a.png", "b.png", "c.png")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_lists_the_images_beside_it(pets: Path, suffix: str):
    write_table(pets / f"labels{suffix}", PETS)
    source = open_source(settings(pets))
    assert source.classes == ("cat", "dog")
    assert placed(source) == [("train", "dog", "a.png"), ("train", "cat", "b.png"), ("train", "dog", "c.png")]
    assert source.missing == ("test", "val")
    assert source.groups is None
    assert {source.names[position]: content for position, content in source.read()} == {
        name: (pets / name).read_bytes() for name in ("a.png", "b.png", "c.png")
    }


texts = st.text(st.characters(exclude_categories=["C"], exclude_characters="|"), min_size=1).map(str.strip).filter(bool)


@budget(max_examples=20)
@given(labels=st.lists(texts | st.integers(), min_size=2, max_size=9).filter(lambda some: len({*map(str, some)}) > 1))
def test_all_formats_give_the_same_labels(tmp_path_factory: pytest.TempPathFactory, labels: list[Any]):
    found = []
    if not all(isinstance(label, int) and abs(label) < 2**63 for label in labels):
        labels = [str(label) for label in labels]
    for suffix in (".csv", ".tsv", ".jsonl", ".parquet"):
        folder = tmp_path_factory.mktemp("data")
        rows = [{"image_path": f"{number}.png", "target": label} for number, label in enumerate(labels)]
        for row in rows:
            (folder / row["image_path"]).touch()
        write_table(folder / f"all{suffix}", rows)
        found.append(placed(open_source(settings(folder))))
    assert found[0] == found[1] == found[2] == found[3]
    assert len(found[0]) == len(labels)


def test_semicolons_byte_order_mark_and_crlf_are_read(pets: Path):
    text = "\ufeffimage; label\r\na; dog\r\nb; cat\r\nc; dog\r\n"
    (pets / "export.csv").write_text(text, encoding="utf-8", newline="")
    assert [label for _, label, _ in placed(open_source(settings(pets)))] == ["dog", "cat", "dog"]


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


@pytest.mark.parametrize("label", ["cat|dog", ["cat", "dog"]])
def test_several_labels_of_an_image_are_refused(pets: Path, label: object):
    write_table(pets / "labels.jsonl", [*PETS[:2], PETS[2] | {"label": label}])
    with pytest.raises(UserError, match=r"gives an image several labels.*keep the rows with one label"):
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


def test_images_are_found_without_suffix_and_in_any_folder_below(tmp_path: Path):
    write_images(
        tmp_path, "part_1/ISIC_1.jpg", "part_2/ISIC_2.jpg", "masks/ISIC_3.png", "part_2/ISIC_3.jpg", "x/y/4.jpg"
    )
    rows = [{"image_id": image, "dx": dx} for image, dx in (("ISIC_1", "nv"), ("ISIC_2", "mel"), (r"y\4.jpg", "nv"))]
    write_table(tmp_path / "meta.csv", rows)
    source = open_source(settings(tmp_path))
    assert source.names == ("part_1/ISIC_1.jpg", "part_2/ISIC_2.jpg", "x/y/4.jpg")
    write_table(tmp_path / "meta.csv", [*rows[:2], {"image_id": "ISIC_3", "dx": "nv"}])
    with pytest.raises(UserError, match=r"ISIC_3, which may be masks/ISIC_3\.png or part_2/ISIC_3\.jpg"):
        open_source(settings(tmp_path))
    source = open_source(settings(tmp_path, images="part_2"))
    assert source.names == ("part_2/ISIC_2.jpg", "part_2/ISIC_3.jpg")
    assert source.row_findings == {"missing_file": ("ISIC_1 in meta.csv",), "unlisted_file": ()}


@pytest.mark.parametrize("image", ["/etc/a.png", "../a.png", "x/../../a.png", r"..\a.png", "https://example.com/a.png"])
def test_a_path_outside_is_refused(pets: Path, image: str):
    write_images(pets.parent, "a.png")
    write_table(pets / "labels.csv", [*PETS, {"file_name": image, "label": "dog"}])
    with pytest.raises(UserError, match=r"which is outside data\.path: put the images inside"):
        open_source(settings(pets))


def test_a_table_alone_has_no_images_beside_it(pets: Path):
    with pytest.raises(UserError, match=r"none of the 3 images in the tables is in .*labels\.csv.*data\.images"):
        open_source(settings(write_table(pets / "labels.csv", PETS)))
    with pytest.raises(UserError, match=r"data\.images: .* has no images in \.\./pets"):
        open_source(settings(pets, images="../pets"))


def test_folder_tar_and_zip_give_the_same_images(pets: Path):
    write_table(pets / "labels.csv", PETS)
    names = sorted(path.name for path in pets.iterdir())
    with tarfile.open(f"{pets}.tar", "w") as tar, zipfile.ZipFile(f"{pets}.zip", "w") as zipped:
        for name in names:
            tar.add(pets / name, f"./pets/{name}")
            zipped.write(pets / name, f"pets/{name}")
    sources = [open_source(settings(Path(f"{pets}{suffix}"))) for suffix in ("", ".tar", ".zip")]
    assert [[label for _, label, _ in placed(source)] for source in sources] == [["dog", "cat", "dog"]] * 3
    contents = [[content for _, content in sorted(source.read())] for source in sources]
    assert contents[0] == contents[1] == contents[2]


def test_rows_that_do_not_fit_are_all_named_or_left_out(tmp_path: Path):
    names = [f"{number}.png" for number in range(20)]
    write_images(tmp_path / "pets", *names)
    rows = [{"image": name, "label": ("cat", "dog")[number % 2]} for number, name in enumerate(names[:18])]
    rows += [{"image": "gone.png", "label": "cat"}, {"image": "", "label": "cat"}, {"image": "18.png", "label": ""}]
    rows += [rows[4], {"image": "5.png", "label": "cat"}]
    write_table(tmp_path / "pets" / "labels.csv", rows)
    with pytest.raises(UserError) as error:
        prepare(settings(tmp_path / "pets"), tmp_path / "out")
    assert "rows whose image is not there, 2 in all: gone.png in labels.csv; an empty cell in labels.csv" in str(
        error.value
    )
    assert "images with contradicting rows, 1 in all: 5.png: cat and dog" in str(error.value)
    assert "images without a label, 1 in all: 18.png: fix or remove them, or set data.on_bad" in str(error.value)
    info, checks = prepare(settings(tmp_path / "pets", on_bad="skip"), tmp_path / "out")
    assert sum(split.images for split in info.splits.values()) == 17
    kinds = ("missing_file", "contradiction", "no_label", "repeated_row", "unlisted_file")
    assert [checks.counts[kind] for kind in kinds] == [2, 1, 1, 1, 1]
    examples = {finding.kind: finding.examples for finding in checks.findings}
    assert examples["repeated_row"] == ("4.png",)
    assert examples["unlisted_file"] == ("19.png",)


def hugging_face(folder: Path, images: dict[str, Rows], names: list[str]) -> Path:
    """Parquet shards with encoded images, as `datasets` writes them."""
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    for name, rows in images.items():
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        write_table(folder / "data" / name, rows, metadata)
    return folder


def test_hugging_face_parquet_gives_what_the_folder_gives(tmp_path: Path):
    rng = np.random.default_rng(0)
    shards: dict[str, Rows] = {"train-00000-of-00002": [], "train-00001-of-00002": [], "test-00000-of-00001": []}
    for label, name in enumerate(("cat", "dog")):
        for split, count in (("train", 10), ("test", 3)):
            (tmp_path / "folder" / split / name).mkdir(parents=True)
            for number in range(count):
                file = tmp_path / "folder" / split / name / f"{number}.jpg"
                Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(file)
                shard = "test-00000-of-00001" if split == "test" else f"train-0000{label}-of-00002"
                shards[shard].append({"image": {"bytes": file.read_bytes(), "path": file.name}, "label": label})
    files = {f"{name}.parquet": rows for name, rows in shards.items()}
    shard_folder = hugging_face(tmp_path / "hf", files, ["cat", "dog"])
    expected, _ = prepare(settings(tmp_path / "folder", source="folder"), tmp_path / "a")
    found, checks = prepare(settings(shard_folder), tmp_path / "b")
    assert found.digest == expected.digest
    assert found.classes == expected.classes
    assert checks.counts["unreadable"] == 0
    for split in PREPARED_SPLITS:
        assert (read_split(tmp_path / "a", split).images == read_split(tmp_path / "b", split).images).all()
        assert (read_split(tmp_path / "a", split).labels == read_split(tmp_path / "b", split).labels).all()


def test_hugging_face_marks_a_split_without_labels(tmp_path: Path):
    rows = [{"image": {"bytes": png(level), "path": None}, "label": level % 2} for level in range(4)]
    hidden = [row | {"label": -1} for row in rows]
    path = hugging_face(tmp_path, {"train-0.parquet": rows, "test-0.parquet": hidden}, ["wolf", "dog"])
    source = open_source(settings(path))
    assert source.classes == ("wolf", "dog")
    assert source.missing == ("test", "val")
    assert source.notes == ("passed over: data/test-0.parquet: no row has a label.",)
    assert source.names[1] == "data/train-0.parquet#1"


def test_a_parquet_file_alone_and_in_an_archive_holds_its_images(tmp_path: Path):
    rows = [{"img": png(level), "id": level, "category": "ab"[level % 2]} for level in range(4)]
    table = write_table(tmp_path / "pets.parquet", rows)
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as zipped:
        zipped.write(table, "pets.parquet")
    for path in (table, tmp_path / "pets.zip"):
        assert dict(open_source(settings(path)).read()) == {level: png(level) for level in range(4)}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.parquet", b"PAR1", "is damaged or no Parquet"),
        ("a.csv", b"image,label\na\n", "line 2 has 1 cells and the first has 2"),
        ("a.csv", b"image,image\na,b\n", "two columns of one name"),
        ("a.csv", b"image,label\ncaf\xe9,b\n", "is not UTF-8"),
        ("a.csv", b"", "no column with a usual name for the image"),
        ("a.jsonl", b'{"image": "a"}\n{"image"', "line 2 is not JSON"),
        ("a.jsonl", b"[1]", "line 1 is not an object"),
        ("a.txt", b"", "holds no table: expected .csv, .tsv, .jsonl or .parquet"),
    ],
)
def test_a_damaged_table_is_one_sentence(tmp_path: Path, name: str, content: bytes, sentence: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        open_source(settings(tmp_path))


def test_one_class_is_not_enough(pets: Path):
    write_table(pets / "labels.csv", PETS[:1])
    with pytest.raises(UserError, match=r"only one class \(dog\)"):
        open_source(settings(pets))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_folder_with_hugging_faces_metadata_needs_no_setting(pets: Path, suffix: str):
    write_table(pets / f"metadata{suffix}", PETS)
    assert placed(open_source(settings(pets, source="folder"))) == placed(open_source(settings(pets)))


@pytest.mark.parametrize("text", ["file_name,text\ncat/a.png,a cat\n", "id,label\n1,cat\n", "file_name,label\na\n"])
def test_metadata_without_labels_leave_the_folders_as_classes(tmp_path: Path, text: str):
    write_images(tmp_path, "cat/a.png", "dog/b.png")
    (tmp_path / "metadata.csv").write_text(text)
    source = open_source(settings(tmp_path, source="folder"))
    assert source.classes == ("cat", "dog")
    assert source.stray == ("metadata.csv",)


def test_a_link_to_nothing_is_unreadable(pets: Path):
    (pets / "d.png").symlink_to(pets / "nowhere.png")
    write_table(pets / "labels.csv", [*PETS, {"file_name": "d.png", "label": "dog"}])
    source = open_source(settings(pets))
    assert len(source.names) == 3
    assert [(file.name, file.reason) for file in source.unreadable] == [("d.png", "a link to nothing")]
