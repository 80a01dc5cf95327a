import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from PIL import Image

from table_factories import PETS, Rows, placed, png, settings, write_images, write_table
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, read_split
from vit_vs_cnn.data.prepare import open_source, prepare


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


texts = (
    st.text(st.characters(exclude_categories=["C"], exclude_characters="|[,;"), min_size=1).map(str.strip).filter(bool)
)


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


@pytest.mark.parametrize(("written", "stored"), [("\u00e9", "e\u0301"), ("e\u0301", "\u00e9")], ids=["nfc", "nfd"])
def test_a_table_finds_files_in_the_other_form_of_unicode(tmp_path: Path, written: str, stored: str):
    names = (f"caf{stored}/{stored}.png", f"caf{stored}/b.png")
    write_images(tmp_path, *names)
    rows = [{"file_name": f"{written}.png", "label": "dog"}, {"file_name": "b", "label": "cat"}]
    write_table(tmp_path / f"caf{stored}" / "labels.csv", rows)
    for images in (None, f"caf{written}", f"caf{stored}"):
        source = open_source(settings(tmp_path, images=images))
        assert source.names == names
        assert [content for _, content in sorted(source.read())] == [(tmp_path / name).read_bytes() for name in names]


def test_a_file_name_that_is_not_utf8_is_one_sentence(pets: Path):
    write_table(pets / "labels.csv", PETS)
    try:
        (pets / "caf\udce9.png").touch()
    except (OSError, UnicodeError):
        pytest.skip("the file system takes no such names")
    with pytest.raises(UserError, match=r"the file name 'caf\\udce9\.png' is not UTF-8: rename the file"):
        open_source(settings(pets))


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


def test_an_image_of_two_groups_contradicts_itself(pets: Path):
    rows = [row | {"patient": "p1"} for row in PETS]
    write_table(pets / "labels.csv", [*rows, rows[0] | {"patient": "p2"}])
    source = open_source(settings(pets, columns={"group": "patient"}))
    assert source.names == ("b.png", "c.png")
    assert source.row_findings["contradiction"] == ("a.png: dog in p1 and dog in p2",)
    assert "repeated_row" not in source.row_findings


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


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (PETS[:1], r"only one class \(dog\)\.$"),
        (
            [PETS[0], PETS[1] | {"label": ""}, {"file_name": "gone.png", "label": "cat"}],
            r"the usable rows .* only one class \(dog\); passed over: 1 × missing file, 1 × no label\.$",
        ),
        ([PETS[0], PETS[0] | {"label": "cat"}], r"\(not even one\); passed over: 1 × contradiction\.$"),
    ],
)
def test_fewer_than_two_classes_are_not_enough(pets: Path, rows: Rows, sentence: str):
    write_table(pets / "labels.csv", rows)
    with pytest.raises(UserError, match=sentence):
        open_source(settings(pets))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_folder_with_hugging_faces_metadata_needs_no_setting(pets: Path, suffix: str):
    write_table(pets / f"metadata{suffix}", PETS)
    assert placed(open_source(settings(pets, source="folder"))) == placed(open_source(settings(pets)))


@pytest.mark.parametrize(
    "text",
    [
        "file_name,text\ncat/a.png,a cat\n",
        "id,label\n1,cat\n",
        "file_name,label\na\n",
        "file_name,young,blurred\ncat/a.png,1,0\ndog/b.png,0,1\n",
    ],
)
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
