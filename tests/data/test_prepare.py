import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories import REPOSITORY
from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data import prepare as prepare_module
from vit_vs_cnn.data.checks import read_checks
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, Decoding, read_info, read_split
from vit_vs_cnn.data.prepare import prepare

CIFAR10_IMAGES = REPOSITORY.parent / "shared/data/cifar10-images.tar.gz"


def data_settings(path: Path, **changes: object) -> DataSettings:
    values = {"source": "folder", "name": "pets", "path": str(path), "image_size": 16, "min_images_per_class": 3}
    return DataSettings.model_validate(values | changes)


def write_pets(folder: Path, per_class: int = 10, splits: tuple[str, ...] = ("",)) -> Path:
    """Noise of mixed sizes, a brightness for each class: cat, dog and emu."""
    rng = np.random.default_rng(0)
    for split in splits:
        for bright, name in enumerate(("cat", "dog", "emu")):
            (folder / split / name).mkdir(parents=True)
            for number in range(per_class):
                side = 16 + 4 * (number % 2)
                pixels = rng.integers(60 * bright, 60 * bright + 120, (side, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_is_written_is_what_is_returned_and_consistent(tmp_path: Path):
    info, checks = prepare(data_settings(write_pets(tmp_path / "pets")), tmp_path / "out")
    assert read_info(tmp_path / "out") == info
    assert read_checks(tmp_path / "out") == checks
    names = []
    for name in PREPARED_SPLITS:
        split, split_info = read_split(tmp_path / "out", name), info.splits[name]
        assert split.images.shape == (split_info.images, 16, 16, 3)
        assert np.bincount(split.labels).tolist() == list(split_info.counts)
        assert [info.classes[label] for label in split.labels] == [file.split("/")[0] for file in split.names]
        names += split.names
    assert sorted(names) == sorted(f"{name}/{number}.png" for name in ("cat", "dog", "emu") for number in range(10))
    assert np.sum([info.splits[name].counts for name in PREPARED_SPLITS], axis=0).tolist() == [10, 10, 10]
    assert min(min(info.splits[name].counts) for name in PREPARED_SPLITS) >= 1


def test_what_was_understood_is_said_before_any_work(tmp_path: Path):
    folder = write_pets(tmp_path / "pets", splits=("Training", "Testing"), per_class=3)
    (folder / "Training" / "cat" / "README.txt").write_text("words")
    said: list[str] = []

    def say(line: str) -> None:
        assert not (tmp_path / "out").exists()
        said.append(line)

    _, checks = prepare(data_settings(folder), tmp_path / "out", say)
    assert said[:2] == ["image folder pets: train 9, test 9 images", "3 classes (images in train): cat 3, dog 3, emu 3"]
    later = ("data.fit", "Splits are carved")
    assert said[2:] == [f"note: {note}" for note in checks.notes if not note.startswith(later)]
    assert checks.counts["unreadable"] == 0
    assert "train in Training/, test in Testing/; val is taken from train" in said[2]
    assert "1 files in class folders are no images" in said[3]


def test_the_settings_of_the_layout_and_of_bad_files_reach_the_folder(tmp_path: Path):
    folder = write_pets(tmp_path / "pets", splits=("north", "south"), per_class=3)
    (folder / "north" / "fox").mkdir()
    info, _ = prepare(data_settings(folder, class_level=2, on_bad="skip"), tmp_path / "out")
    assert info.classes == ("cat", "dog", "emu")
    splits = {"train": "south", "test": "north"}
    info, _ = prepare(data_settings(folder, splits=splits, on_bad="skip"), tmp_path / "out")
    assert info.splits["test"].counts == (3, 3, 3)


def test_every_image_stands_beside_its_own_name(tmp_path: Path):
    folder = write_pets(tmp_path / "pets")
    prepare(data_settings(folder), tmp_path / "out")
    for name in PREPARED_SPLITS:
        split = read_split(tmp_path / "out", name)
        for pixels, file in zip(split.images, split.names, strict=True):
            with Image.open(folder / file) as image:
                if image.size == (16, 16):
                    assert (pixels == np.asarray(image)).all()


def test_mean_and_deviation_are_those_of_the_training_pixels(tmp_path: Path):
    info, _ = prepare(data_settings(write_pets(tmp_path / "pets")), tmp_path / "out")
    train = read_split(tmp_path / "out", "train").images / 255
    np.testing.assert_allclose(info.mean, train.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(info.std, train.std(axis=(0, 1, 2)), rtol=1e-12)


def test_the_same_source_gives_the_same_bytes_and_another_seed_another_split(tmp_path: Path):
    folder = write_pets(tmp_path / "pets")
    prepare(data_settings(folder), tmp_path / "one")
    prepare(data_settings(folder), tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    other, _ = prepare(data_settings(folder, split_seed=1), tmp_path / "two")
    assert other.digest != read_info(tmp_path / "one").digest


def test_a_part_of_train_leaves_test_whole_and_what_it_leaves_is_prepared_as_before(tmp_path: Path):
    folder = write_pets(tmp_path / "pets", per_class=60)
    whole, _ = prepare(data_settings(folder), tmp_path / "whole")
    part, checks = prepare(data_settings(folder, train_fraction=0.3), tmp_path / "part")
    for name in ("train", "val"):
        expected = [round(0.3 * count) for count in whole.splits[name].counts]
        assert list(part.splits[name].counts) == expected
        images = {image.tobytes() for image in read_split(tmp_path / "whole", name).images}
        split = read_split(tmp_path / "part", name)
        assert {image.tobytes() for image in split.images} <= images
        assert len(split.names) == len(split.digests) == len(split)
    assert part.splits["test"] == whole.splits["test"]
    assert any("data.train_fraction 0.3: " in note and "test is whole" in note for note in checks.notes)
    with pytest.raises(UserError, match=r"data\.train_fraction: 0\.001 of \d+ training images is fewer than the 3"):
        prepare(data_settings(folder, train_fraction=0.001), tmp_path / "part")


def splits_by_pixels(prepared: Path) -> dict[bytes, str]:
    return {image.tobytes(): name for name in PREPARED_SPLITS for image in read_split(prepared, name).images}


@pytest.mark.parametrize("added", [1, 10, 50])
def test_added_removed_and_renamed_files_move_no_other_image(tmp_path: Path, added: int):
    folder = write_pets(tmp_path / "pets", per_class=100)
    prepare(data_settings(folder), tmp_path / "before")
    before, rng = splits_by_pixels(tmp_path / "before"), np.random.default_rng(1)
    for name in ("cat", "dog", "emu"):
        for number in range(added):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03} added.png")
        (folder / name / "0.png").rename(folder / name / "renamed.png")
    prepare(data_settings(folder), tmp_path / "more")
    more = splits_by_pixels(tmp_path / "more")
    assert len(more) == 300 + 3 * added
    assert {image: more[image] for image in before} == before
    for path in folder.rglob("7*.png"):
        path.unlink()
    prepare(data_settings(folder), tmp_path / "fewer")
    fewer = splits_by_pixels(tmp_path / "fewer")
    assert len(fewer) == len(more) - 33
    assert all(more[image] == split for image, split in fewer.items())


def test_the_digests_of_the_files_stand_beside_the_images(tmp_path: Path):
    folder = write_pets(tmp_path / "pets")
    prepare(data_settings(folder), tmp_path / "out")
    for name in PREPARED_SPLITS:
        split = read_split(tmp_path / "out", name)
        expected = [hashlib.blake2b((folder / file).read_bytes(), digest_size=8).digest() for file in split.names]
        assert split.digests is not None
        assert [digest.tobytes()[::-1] for digest in split.digests] == expected


def test_a_folder_and_its_archive_give_the_same_data(tmp_path: Path):
    folder = write_pets(tmp_path / "pets", splits=("train", "test"))
    with tarfile.open(tmp_path / "pets.tar.gz", "w:gz") as tar:
        for path in sorted(folder.rglob("*.png"), reverse=True):
            tar.add(path, path.relative_to(folder))
    one, _ = prepare(data_settings(folder), tmp_path / "one")
    two, _ = prepare(data_settings(tmp_path / "pets.tar.gz"), tmp_path / "two")
    assert one.digest == two.digest
    assert one.splits["test"].images == 30


def test_one_changed_image_changes_the_digest(tmp_path: Path):
    folder = write_pets(tmp_path / "pets")
    before, _ = prepare(data_settings(folder), tmp_path / "out")
    Image.new("RGB", (16, 16), "red").save(folder / "cat" / "0.png")
    assert prepare(data_settings(folder), tmp_path / "out")[0].digest != before.digest


def test_data_prepared_before_are_removed(tmp_path: Path):
    (tmp_path / "out" / "train").mkdir(parents=True)
    (tmp_path / "out" / "train" / "left.npy").write_bytes(b"old")
    prepare(data_settings(write_pets(tmp_path / "pets")), tmp_path / "out")
    assert not (tmp_path / "out" / "train" / "left.npy").exists()


def test_unreadable_files_fail_by_name_with_both_ways_out(tmp_path: Path):
    folder = write_pets(tmp_path / "pets")
    for number in range(7):
        (folder / "dog" / f"broken{number}.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"7 in all: dog/broken0\.jpg \(not an image.*: fix .*on_bad to skip"):
        prepare(data_settings(folder), tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_unreadable_files_are_skipped_and_reported_and_the_rest_stands_in_place(tmp_path: Path):
    folder = write_pets(tmp_path / "pets")
    clean = write_pets(tmp_path / "clean")
    for name in ("cat/3.png", "emu/0.png", "emu/9.png"):
        (folder / name).write_bytes(b"no image")
    info, checks = prepare(data_settings(folder, on_bad="skip"), tmp_path / "out")
    prepare(data_settings(clean), tmp_path / "whole")
    assert checks.counts["unreadable"] == 3
    assert sum(split.images for split in info.splits.values()) == 27
    for name in PREPARED_SPLITS:
        split, whole = read_split(tmp_path / "out", name), read_split(tmp_path / "whole", name)
        kept = [row for row, file in enumerate(whole.names) if file in split.names]
        assert split.names == tuple(whole.names[row] for row in kept)
        assert (split.images == whole.images[kept]).all()
        assert (split.labels == whole.labels[kept]).all()


def test_a_file_that_nobody_may_read_is_skipped_by_name(tmp_path: Path):
    folder = write_pets(tmp_path / "pets")
    closed = folder / "cat" / "3.png"
    closed.chmod(0)
    if os.access(closed, os.R_OK):
        pytest.skip("this user may read every file, as root may")
    with pytest.raises(UserError, match=r"1 in all: cat/3\.png \(no permission to read it\)"):
        prepare(data_settings(folder), tmp_path / "out")
    info, checks = prepare(data_settings(folder, on_bad="skip"), tmp_path / "out")
    assert sum(split.images for split in info.splits.values()) == 29
    assert ("cat/3.png: no permission to read it",) in [finding.examples for finding in checks.findings]


def test_a_class_without_any_readable_image_fails_even_if_bad_files_are_skipped(tmp_path: Path):
    folder = write_pets(tmp_path / "pets", splits=("train", "val", "test"), per_class=3)
    for path in (folder / "train" / "dog").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="no readable training image of dog"):
        prepare(data_settings(folder, on_bad="skip"), tmp_path / "out")


def test_a_split_without_any_readable_image_fails(tmp_path: Path):
    folder = write_pets(tmp_path / "pets", splits=("train", "val", "test"), per_class=3)
    for path in (folder / "val").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="no readable image for val"):
        prepare(data_settings(folder, on_bad="skip"), tmp_path / "out")


def test_a_class_that_a_split_lacks_is_only_reported(tmp_path: Path):
    folder = write_pets(tmp_path / "pets", splits=("train", "val", "test"), per_class=3)
    for path in (folder / "test" / "dog").iterdir():
        path.unlink()
    info, checks = prepare(data_settings(folder), tmp_path / "out")
    assert checks.counts["missing_class"] == 1
    assert info.splits["test"].counts == (3, 0, 3)


def test_a_full_disk_is_found_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(prepare_module.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match=r"out: cannot be written \(No space left on device\).* of free disk"):
        prepare(data_settings(write_pets(tmp_path / "pets")), tmp_path / "out")


def test_a_disk_that_fills_up_meanwhile_is_one_sentence(tmp_path: Path):
    """In a separate process that may write no file as large as the arrays."""
    program = f"""
import resource, signal
from pathlib import Path
from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.data.prepare import prepare
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
prepare(DataSettings(source="digits", name="digits", path=""), Path({str(tmp_path / "out")!r}))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert "UserError: " in done.stderr.splitlines()[-1]
    assert "cannot be written" in done.stderr.splitlines()[-1]


def test_digits_are_prepared_without_torch(tmp_path: Path):
    program = f"""
import sys
from pathlib import Path
from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.data.prepare import prepare
info, _ = prepare(DataSettings(source="digits", name="digits", path=""), Path({str(tmp_path / "out")!r}))
assert sum(split.images for split in info.splits.values()) == 1797
assert "torch" not in sys.modules
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=300)


@pytest.mark.skipif(not CIFAR10_IMAGES.exists(), reason=f"{CIFAR10_IMAGES} is not on this machine")
def test_a_part_of_the_cifar10_copy(tmp_path: Path):
    with tarfile.open(CIFAR10_IMAGES) as whole, tarfile.open(tmp_path / "part.tar", "w") as part:
        for member in whole:
            if member.isfile() and member.name.endswith(("00.jpg", "50.jpg")):
                part.addfile(member, whole.extractfile(member))
    info, _ = prepare(data_settings(tmp_path / "part.tar", image_size=32), tmp_path / "out")
    assert info.splits["test"].counts == (20,) * 10
    split = read_split(tmp_path / "out", "test")
    with tarfile.open(tmp_path / "part.tar") as part:
        for row in (0, 77, 199):
            file = part.extractfile(split.names[row])
            assert file is not None
            assert (split.images[row] == np.asarray(Image.open(io.BytesIO(file.read())))).all()


def test_how_files_are_decoded_is_recorded_and_said(tmp_path: Path):
    rng = np.random.default_rng(0)
    for bright, name in enumerate(("cat", "dog")):
        (tmp_path / "xrays" / name).mkdir(parents=True)
        for number in range(10 if bright else 40):
            levels = rng.integers(1000 * bright, 1000 * bright + 3000, (16, 32)).astype(np.uint16)
            Image.fromarray(levels).save(tmp_path / "xrays" / name / f"{number}.png")
    settings = data_settings(tmp_path / "xrays", channels="grey")
    info, checks = prepare(settings, tmp_path / "out")
    assert read_info(tmp_path / "out").decoding == info.decoding
    assert (info.decoding.fit, info.decoding.channels) == ("crop", "grey")
    low, high = info.decoding.levels or (0, 0)
    assert 0 <= low < 100
    assert 3800 < high < 4000
    _, carved, crop, levels, balance = checks.notes
    assert carved.startswith("Splits are carved by the digests of their images")
    assert "discards 50% of the area" in crop
    assert f"their levels from {low:,g} to {high:,g}" in levels
    assert re.match(r"cat has \d+ training images, [345]\.\d times as many as dog with \d+: accuracy says", balance)
    before = contents(tmp_path / "out")
    prepare(settings, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    given, _ = prepare(data_settings(tmp_path / "xrays", fit="pad", bit_depth=12), tmp_path / "out")
    assert given.decoding == Decoding(fit="pad", levels=(0, 4095))
    padded = read_split(tmp_path / "out", "train").images
    assert not padded[:, [0, 3, 12, 15]].any()
    assert padded[:, 4:12].any(axis=(1, 2, 3)).all()


def test_a_dataset_of_an_earlier_version_was_cropped_in_colour_with_16_bits_by_65535(tmp_path: Path):
    prepare(data_settings(write_pets(tmp_path / "pets")), tmp_path / "out")
    described = json.loads((tmp_path / "out" / "dataset.json").read_text())
    del described["decoding"]
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(described))
    assert read_info(tmp_path / "out").decoding == Decoding(fit="crop", channels="rgb", levels=None)


def test_balanced_classes_of_images_that_are_shown_whole_have_a_note_on_their_folders_only(tmp_path: Path):
    settings = data_settings(write_pets(tmp_path / "pets", splits=("train", "val", "test")), fit="stretch")
    (note,) = prepare(settings, tmp_path / "out")[1].notes
    assert note.startswith("Read as split folders with class folders")
