import signal
import subprocess
import sys
import threading
from collections import Counter
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
        try:
            for letter in "ba" * 100:
                write_atomically(path, letter * size)
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_text() in ("a" * size, "b" * size)
    writer.join()


def test_two_processes_that_write_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path, stop, size = tmp_path / "text", tmp_path / "stop", 200_000
    write_atomically(path, "a" * size)
    code = (
        "import sys; from pathlib import Path; from vit_vs_cnn.core.records import write_atomically\n"
        f"while not Path(sys.argv[2]).exists(): write_atomically(Path(sys.argv[1]), sys.argv[3] * {size})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(stop), letter]) for letter in "bc"]
    seen: Counter[str] = Counter()
    try:
        while min(seen["b"], seen["c"]) < 100 and all(writer.poll() is None for writer in writers):
            text = path.read_text()
            assert text in ("a" * size, "b" * size, "c" * size)
            seen[text[0]] += 1
    finally:
        stop.touch()
        codes = [writer.wait() for writer in writers]
    assert codes == [0, 0]
    assert sorted(tmp_path.iterdir()) == [stop, path]


def test_the_numbers_of_a_record_omit_text_and_none() -> None:
    assert numbers_of(Speed(name="vit", seconds=0.1)) == {"seconds": 0.1}
    assert numbers_of(Speed(name="vit", seconds=0.1, images=3), exclude={"seconds"}) == {"images": 3}


def test_what_a_killed_process_left_is_gone_after_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "text"
    code = "import os, signal, sys; from pathlib import Path; from vit_vs_cnn.core.records import write_atomically; "
    code += "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL); write_atomically(Path(sys.argv[1]), 'a')"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    assert [draft.suffix for draft in tmp_path.iterdir()] == [".draft"]
    write_atomically(path, "b")
    assert list(tmp_path.iterdir()) == [path]
