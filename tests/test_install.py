"""Set-up: uv where it is to be had, with pip's settings; pip otherwise; one sentence where neither works."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from factories import REPOSITORY

FAKE_UV = """#!/bin/sh
printf '%s\\n' "$@" >> "$CALLS"
env | grep -E '^(UV_|SSL_CERT_FILE)' >> "$CALLS"
exit {code}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    return tmp_path


def install(folder: Path, python: str = sys.executable, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run install.py in a folder that has neither a project nor an index."""
    foreign = ("PIP_", "UV_", "SSL_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    own = {"PATH": f"{folder / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin", "PIP_NO_INDEX": "1", "PIP_NO_INPUT": "1"}
    own |= {"CALLS": str(folder / "calls"), "PIP_CONFIG_FILE": str(folder / "pip.conf"), "HOME": str(folder)}
    command = [python, str(REPOSITORY / "install.py"), ".[dev]"]
    environment = kept | own | variables
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def add_uv(folder: Path, code: int = 0) -> None:
    uv = folder / "bin" / "uv"
    uv.write_text(FAKE_UV.format(code=code))
    uv.chmod(0o755)


def test_uv_installs_into_this_environment_with_the_settings_of_pip(folder: Path) -> None:
    add_uv(folder)
    (folder / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror.example/simple\nextra-index-url =\n  https://one.example/simple\n"
        "  https://two.example/simple\nfind-links = /wheels\ncert = /from/file.pem\n"
    )
    answer = install(folder, PIP_CERT="/from/environment.pem", UV_FIND_LINKS="/own/wheels", PIP_NO_INDEX="")
    assert answer.returncode == 0, answer.stderr
    calls = (folder / "calls").read_text().splitlines()
    assert calls[:2] == ["pip", "install"]
    assert calls[calls.index("--python") + 1] == sys.executable
    assert calls[calls.index("--constraint") + 1] == "constraints.txt"
    assert calls[calls.index("--editable") + 1] == ".[dev]"
    assert "UV_DEFAULT_INDEX=https://mirror.example/simple" in calls
    assert "UV_INDEX=https://one.example/simple https://two.example/simple" in calls
    assert "UV_INDEX_STRATEGY=unsafe-best-match" in calls
    assert "SSL_CERT_FILE=/from/environment.pem" in calls
    assert "UV_FIND_LINKS=/own/wheels" in calls
    assert ["pip", "check"] in [calls[start : start + 2] for start in range(len(calls))]


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_uv_trusts_the_certificates_that_pip_trusts(folder: Path, name: str) -> None:
    add_uv(folder)
    assert install(folder, **{name: "/company.pem", "PIP_CERT": ""}).returncode == 0
    calls = (folder / "calls").read_text().splitlines()
    assert "UV_SYSTEM_CERTS=true" in calls
    assert "SSL_CERT_FILE=/company.pem" in calls


def test_where_uv_fails_pip_tries_and_where_both_fail_it_is_one_sentence(folder: Path) -> None:
    add_uv(folder, code=1)
    answer = install(folder)
    assert answer.returncode == 1
    assert "uv could not install the packages, for the reason above; pip tries now" in answer.stdout
    last = answer.stderr.strip().splitlines()[-1]
    assert last.startswith("error: neither uv nor pip could install the packages, for the reason above.")
    assert "pip config" in last


def test_uv_is_installed_first_where_there_is_none_and_without_it_pip_installs(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = str(folder / "venv" / "bin" / "python")
    answer = install(folder, python)
    assert answer.returncode == 1
    assert "uv cannot be installed, for the reason above; pip installs the packages, in some minutes." in answer.stdout
    assert "error: neither uv nor pip could install the packages" in answer.stderr

    (folder / "wheels").mkdir()
    with zipfile.ZipFile(folder / "wheels" / "uv-1.0-py3-none-any.whl", "w") as wheel:
        program = zipfile.ZipInfo("uv-1.0.data/scripts/uv")
        program.external_attr = 0o100755 << 16  # a file that may be run
        wheel.writestr(program, FAKE_UV.format(code=0))
        wheel.writestr("uv-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: uv\nVersion: 1.0\n")
        wheel.writestr("uv-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("uv-1.0.dist-info/RECORD", "")
    answer = install(folder, python, PIP_FIND_LINKS=str(folder / "wheels"))
    assert answer.returncode == 0, answer.stderr
    calls = (folder / "calls").read_text().splitlines()
    assert calls[:2] == ["pip", "install"]
    assert calls[calls.index("--python") + 1] == python
