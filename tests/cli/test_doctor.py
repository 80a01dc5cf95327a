import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from vit_vs_cnn import cli
from vit_vs_cnn.cli.doctor import Check, checks, render
from vit_vs_cnn.cli.maintenance import doctor


def test_it_checks_everything_and_says_what_a_failure_means(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    found = {check.subject: check for check in checks()}
    assert found["device"].found.endswith("CPU, 1 thread")
    assert found["Python"].ok
    assert found["packages"].ok, found["packages"].found
    assert found["project"].found == str(project)
    assert found["space"].found.startswith("mlruns 1 MB, ")
    assert not found["tracking store"].ok
    assert "vit-vs-cnn sync" in found["tracking store"].meaning
    assert not found["hub"].ok
    assert not found["hub"].required


def test_scripts_get_the_checks_as_json(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    answer = CliRunner().invoke(doctor, ["--json"])
    found = {check["subject"]: check for check in json.loads(answer.stdout)}
    assert found["project"] == {
        "subject": "project",
        "ok": True,
        "found": str(project),
        "meaning": "",
        "required": True,
    }
    assert (found["hub"]["ok"], found["hub"]["required"]) == (False, False)
    assert answer.exit_code == any(not check["ok"] and check["required"] for check in found.values())


def test_without_git_it_is_one_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(project))
    monkeypatch.setattr(sys, "argv", ["vit-vs-cnn", "doctor"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err == "error: git is not on PATH, and DVC and isolated runs need it: install it.\n"


def test_what_is_needed_fails_and_what_can_wait_is_a_note() -> None:
    text = render([Check("a", False, "bad", "fix it"), Check("b", False, "unreachable", "later", required=False)])
    assert text == "FAIL  a: bad\n      fix it\nnote  b: unreachable\n      later"
