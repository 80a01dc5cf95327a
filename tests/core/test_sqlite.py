"""Damaged database files, as disks and people leave them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.sqlite import require_sound_database


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE t (x TEXT)")
        made.executemany("INSERT INTO t VALUES (?)", [("x" * 200,)] * 500)
        made.execute("CREATE INDEX i ON t (x)")
        made.commit()
    return path


def test_a_sound_one_a_new_one_and_none_are_accepted(database: Path, tmp_path: Path) -> None:
    require_sound_database(database)
    (tmp_path / "new.db").touch()
    require_sound_database(tmp_path / "new.db")
    require_sound_database(tmp_path / "none.db")


def test_one_that_is_being_written_is_accepted(database: Path) -> None:
    with closing(sqlite3.connect(database)) as writing:
        writing.execute("PRAGMA journal_mode=WAL")
        writing.execute("INSERT INTO t VALUES ('y')")
        require_sound_database(database)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda content: b"garbage" * 1000, "is not an SQLite database"),
        (lambda content: content[: len(content) // 2], "is damaged"),
        (lambda content: content[:50], "is damaged"),
        (lambda content: content[:9000] + bytes(8192) + content[17192:], "is damaged"),
    ],
    ids=["garbage", "cut off", "header alone", "overwritten"],
)
def test_a_damaged_one_is_one_sentence(database: Path, damage: object, sentence: str) -> None:
    database.write_bytes(damage(database.read_bytes()))  # type: ignore[operator]
    with pytest.raises(UserError, match=f"some.db: {sentence}.*: restore it from a backup, or move it away"):
        require_sound_database(database)


def test_a_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        require_sound_database(tmp_path)
