"""A storage that cannot be used is one sentence, without its password."""

from pathlib import Path

import pytest

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.tuning.storage import open_storage


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://root@127.0.0.1/x", "OPTUNA_STORAGE: mysql is not supported"),
        ("/shared/studies.log", "OPTUNA_STORAGE: the file /shared/studies.log is not supported; use sqlite:///PATH"),
        (
            "postgresql://nobody:secret@127.0.0.1:9/x",
            r"OPTUNA_STORAGE: postgresql://nobody:\*\*\*@127.0.0.1:9/x cannot be used",
        ),
        ("sqlite:////proc/nothing/x.db", "OPTUNA_STORAGE: sqlite:////proc/nothing/x.db cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_sentence_without_its_password(url: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        open_storage(url)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_sqlite_file_is_made_with_its_folder(tmp_path: Path) -> None:
    open_storage(f"sqlite:///{tmp_path / 'new' / 'studies.db'}")
    assert (tmp_path / "new" / "studies.db").is_file()
