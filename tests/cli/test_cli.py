import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from factories import REPOSITORY
from vit_vs_cnn import cli
from vit_vs_cnn.core.errors import TransientError, read_error_report


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["vit-vs-cnn", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_help_loads_none_of_the_heavy_packages() -> None:
    code = (
        "import sys; from vit_vs_cnn.cli import commands; commands(['--help'], standalone_mode=False); "
        "print(sorted({'torch', 'mlflow', 'prefect', 'timm', 'pandas', 'numpy', 'pydantic'} & sys.modules.keys()))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip().splitlines()[-1] == "[]"
    assert "Examples:" in answer.stdout


def test_the_program_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "vit_vs_cnn", "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.endswith(f"version {version('vit-vs-cnn')}\n")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("vit-vs-cnn reg", {"registry", "register"}),
        ("vit-vs-cnn run --preset de", {"debug", "demo"}),
        ("vit-vs-cnn study run bud", {"budget"}),
    ],
)
def test_a_shell_completes_commands_presets_and_studies(words: str, completed: set[str]) -> None:
    asked = {"_VIT_VS_CNN_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'vit-vs-cnn'; from vit_vs_cnn.cli import program; program()",
    ]
    answer = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert {line.removeprefix("plain,") for line in answer.stdout.splitlines()} == completed


@pytest.mark.parametrize("command", sorted(cli.commands.commands))
def test_every_command_has_a_help_text(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, "--help", monkeypatch=monkeypatch) == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_a_users_mistake_is_one_sentence_and_exit_code_2(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 10", "epochs: ten"))
    assert run("prepare", monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: params.yaml: train.epochs: input should be a valid integer")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("clean", "--days", "-7"),
        ("up", "--prefect-port", "99999"),
        ("up", "--optuna-port", "0"),
        ("up", "--limit", "0"),
    ],
)
def test_a_number_out_of_range_is_a_mistake_in_the_option(command: str, option: str, value: str) -> None:
    with pytest.raises(click.UsageError) as error:
        cli.commands.commands[command].make_context(command, [option, value])
    assert error.value.exit_code == 2
    assert error.value.format_message().startswith(f"Invalid value for '{option}': {value}")


def test_a_bad_name_is_refused_before_a_server_is_started(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vit_vs_cnn.orchestration.prefect_server.RunServer", None)
    for more in ((), ("--dry-run",)):
        assert run("run", "--name", "my run", *more, monkeypatch=monkeypatch) == 2
        expected = "error: --name my run: letters of a to z, digits, '-', '_' and '.' only.\n"
        assert capsys.readouterr().err == expected
    assert not (project / "runs").exists()


def test_the_error_report_is_written_where_the_caller_asked(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIT_VS_CNN_ERROR_REPORT", str(project / "failure.json"))
    assert run("train", "nobody", monkeypatch=monkeypatch) == 2
    failure = read_error_report(project / "failure.json")
    assert failure is not None
    assert str(failure).startswith("models.nobody: no such contestant")
    assert not isinstance(failure, TransientError)


def test_outside_a_project_it_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("prepare", monkeypatch=monkeypatch) == 2
    assert f"{tmp_path} is not inside a vit-vs-cnn project" in capsys.readouterr().err


def test_a_full_disk_is_one_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "trained/vit/0/weights.safetensors")

    monkeypatch.setattr("vit_vs_cnn.stages.tune.run", full)
    assert run("tune", "vit", monkeypatch=monkeypatch) == 2
    expected = "error: trained/vit/0/weights.safetensors cannot be written: No space left on device.\n"
    assert capsys.readouterr().err == expected


def test_params_prints_the_merged_file_and_checks_the_models(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("params", "--set", "train.epochs=3", monkeypatch=monkeypatch) == 0
    assert "epochs: 3" in capsys.readouterr().out
    assert run("params", "--set", "models.vit.timm=vit_bas_patch16_224", monkeypatch=monkeypatch) == 2
    assert "models.vit.timm: timm has no model 'vit_bas_patch16_224'; the nearest are" in capsys.readouterr().err


def test_sync_with_nothing_pending_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("sync", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == "0 runs delivered, 0 pending.\n"
