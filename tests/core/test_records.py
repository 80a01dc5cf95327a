import threading
from pathlib import Path

import pytest

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.records import Record, numbers_of, write_atomically


class Speed(Record):
    name: str
    seconds: float
    images: int | None = None


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    Speed(name="vit", seconds=0.1).write(path)
    assert Speed.read(path, "run it again") == Speed(name="vit", seconds=0.1)
    assert path.read_text().endswith('"images": null\n}\n')
    Speed(name="vit", seconds=0.1).write(path, exclude_none=True)
    assert "images" not in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is damaged"),
        ("{", "is damaged"),
        ("\udcff", "is damaged"),
        ('{"name": "vit"}', "was written by another version"),
        ('{"name": "vit", "seconds": 1.0, "unknown": 1}', "was written by another version"),
    ],
)
def test_a_record_that_is_not_valid_is_one_sentence(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "speed.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=rf"speed\.json: {problem}; run it again\.$"):
        Speed.read(path, "run it again")


def test_a_missing_record_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"speed\.json: does not exist; run it again\.$"):
        Speed.read(tmp_path / "speed.json", "run it again")


def test_a_reader_never_sees_a_part_of_what_is_written(tmp_path: Path) -> None:
    path, size = tmp_path / "text", 200_000
    write_atomically(path, "a" * size)
    done = threading.Event()

    def write() -> None:
        for letter in "ba" * 100:
            write_atomically(path, letter * size)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_text() in ("a" * size, "b" * size)
    writer.join()


def test_the_numbers_of_a_record_omit_text_and_none() -> None:
    assert numbers_of(Speed(name="vit", seconds=0.1)) == {"seconds": 0.1}
    assert numbers_of(Speed(name="vit", seconds=0.1, images=3), exclude={"seconds"}) == {"images": 3}
