from pathlib import Path

import pytest

from vit_vs_cnn.cli.doctor import Check, checks, render


def test_it_checks_everything_and_says_what_a_failure_means(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    found = {check.subject: check for check in checks()}
    assert found["Python"].ok
    assert found["packages"].ok, found["packages"].found
    assert found["project"].found == str(project)
    assert found["space"].found.startswith("mlruns 1 MB, ")
    assert not found["tracking store"].ok
    assert "vit-vs-cnn sync" in found["tracking store"].meaning
    assert not found["hub"].ok
    assert not found["hub"].required


def test_what_is_needed_fails_and_what_can_wait_is_a_note() -> None:
    text = render([Check("a", False, "bad", "fix it"), Check("b", False, "unreachable", "later", required=False)])
    assert text == "FAIL  a: bad\n      fix it\nnote  b: unreachable\n      later"
