"""Sentences about addresses with passwords."""

import pytest

from vit_vs_cnn.core.errors import RunError, TransientError, UserError, first_line, without_password


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg2://optuna:s3cret@db/optuna", "postgresql+psycopg2://optuna:***@db/optuna"),
        ("at http://user:p%40ss@host:5000, twice http://a:b@c.", "at http://user:***@host:5000, twice http://a:***@c."),
        ("redis://:s3cret@host", "redis://:***@host"),
        ("http://user@host, http://host:5000/a:b", "http://user@host, http://host:5000/a:b"),
        ("sqlite:///mlruns/a@b.db", "sqlite:///mlruns/a@b.db"),
    ],
)
def test_passwords_of_addresses_are_never_shown(text: str, shown: str) -> None:
    assert without_password(text) == shown
    assert first_line(ValueError(text)) == shown.rstrip(".")
    for kind in (UserError, TransientError, RunError):
        assert str(kind(text)) == shown
