"""What a person may ask for, and the command that asks for a run again."""

import shlex
from pathlib import Path
from runpy import run_path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from factories import REPOSITORY
from vit_vs_cnn.cli.pipeline import run
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.orchestration.request import Request, read_request

VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).filter(lambda text: "://" not in text)


def parsed(command: str) -> Request:
    """What `vit-vs-cnn run` is asked for by a line of a shell."""
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("vit-vs-cnn", "run")
    given = run.make_context("run", arguments).params
    return Request(given["preset"] or "", given["overrides"], given["name"], in_place=given["in_place"])


@given(st.sampled_from(["", "demo"]), st.lists(VALUES.map(lambda value: f"data.path={value}")))
def test_the_command_asks_for_the_same_settings_in_the_same_run(preset: str, overrides: list[str]) -> None:
    request = Request(preset, tuple(overrides))
    command = request.command("quick")
    assert parsed(command) == Request(preset, tuple(overrides), "quick")
    assert parsed(f"{command} --set 'seeds=[0,1]'").overrides == (*overrides, "seeds=[0,1]")


def test_to_what_ran_in_place_settings_can_be_added_and_passwords_stay_out() -> None:
    assert Request(in_place=True).command("in-place") == "vit-vs-cnn run"
    assert "secret" not in Request(overrides=("data.path=https://you:secret@example.com/x.zip",)).command("x")


@pytest.mark.parametrize("name", ["my run", "größe", "../up", "-x"])
def test_a_name_that_prefect_and_dvc_would_not_take_is_refused(name: str, project: Path) -> None:
    with pytest.raises(UserError, match=r"^--name .*: letters of a to z, digits, '-', '_' and '\.' only\.$"):
        read_request(Request(name=name))


def test_a_run_that_cannot_be_named_after_its_preset_needs_a_name(project: Path) -> None:
    (project / "presets").mkdir()
    (project / "presets" / "my own.yaml").write_text("train: {epochs: 3}\n")
    with pytest.raises(UserError, match=r"^--preset my own: no run can be named after it; choose one with --name\.$"):
        read_request(Request("my own"))
    assert read_request(Request("my own", name="mine"))[1].train.epochs == 3


def test_the_flow_takes_the_changed_settings_that_the_command_takes(project: Path) -> None:
    override = TypeAdapter(run_path(str(REPOSITORY / "flows" / "pipeline.py"))["Override"])
    for taken in ("train.epochs=3", "train.epochs = 3", "train.epochs=\n  3\n"):
        assert read_request(Request(overrides=(taken,)))[1].train.epochs == 3
        assert override.validate_python(taken) == taken
    for refused in ("seeds", "=3"):
        with pytest.raises(UserError, match=r"expected key\.path=value"):
            read_request(Request(overrides=(refused,)))
        with pytest.raises(ValidationError):
            override.validate_python(refused)
