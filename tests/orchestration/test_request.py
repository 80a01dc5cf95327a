"""The command that asks for a run again."""

import shlex

from hypothesis import given
from hypothesis import strategies as st

from vit_vs_cnn.cli.pipeline import run
from vit_vs_cnn.orchestration.request import Request

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
