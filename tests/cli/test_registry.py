"""What the commands of the registry print."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from factories import add_version, new_registry
from vit_vs_cnn.cli import main
from vit_vs_cnn.cli.registry import aliases_at, history_table, version_page, version_table
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.registry.audit import Decision, open_audit_log
from vit_vs_cnn.registry.promotion import promote, propose


def test_the_tables_of_versions_and_decisions(settings: Settings, project: Path) -> None:
    registry = new_registry()
    proposal = propose(registry, str(add_version(settings, registry, range(40))), settings, PREPARED)
    assert proposal is not None
    promote(registry, proposal, reason="the first")
    add_version(settings, registry, range(50))
    with open_audit_log(registry) as log:
        decisions = log.decisions()
    table = version_table(registry.versions())
    assert [line.split()[:4] for line in table.splitlines()[2:]] == [
        ["2", "vit", "some_vit", "-"],
        ["1", "vit", "some_vit", "champion"],
    ]
    assert "93.33%" in table
    page = version_page(registry.version("champion"), decisions)
    assert "the first" in page
    assert "accuracy" in page
    assert "No decision names it." in version_page(registry.version("2"), decisions)
    assert history_table(decisions).splitlines()[2].split()[2:7] == [
        decisions[0].user, "champion", "promoted", "-", "1",
    ]  # fmt: skip
    assert registry.version("1").card == "# A card"


def test_exit_code_4_where_the_test_images_cannot_tell_until_a_person_accepts(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = new_registry()
    for wrong in (range(6), range(6, 12), range(80)):
        add_version(settings, registry, wrong)

    def called(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["vit-vs-cnn", "registry", "promote", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        output = capsys.readouterr()
        return code, output.out + output.err

    assert called("1")[0] == 0
    for arguments in (("2", "--dry-run"), ("2",)):
        code, output = called(*arguments)
        assert code == 4
        assert "undecided: tiny-classifier: " in output
        assert "These 600 test images cannot exclude a loss of 1.29 points" in output
    assert called("3", "--accept", "--reason", "no")[0] == 3
    assert called("2", "--accept") == (
        2,
        'error: --accept: give a reason, e.g. --reason "the old one is broken"; it is recorded.\n',
    )
    code, output = called("2", "--accept", "--reason", "looked at all of them")
    assert (code, output.splitlines()[-1]) == (
        0,
        "version 2 is the champion now, accepted undecided; before: 1.",
    )
    with open_audit_log(registry) as log:
        decisions = log.decisions()
    assert [decision.summary for decision in decisions] == ["promoted", "undecided", "refused", "promoted, accepted"]
    assert [line.split()[-1] for line in history_table(decisions).splitlines()[2:3]] == ["1"]


def test_who_was_champion_at_a_time() -> None:
    moves = [
        Decision(action="promoted", alias="champion", version=1, time_ms=1_000_000),
        Decision(action="refused", alias="champion", previous_version=1, version=2, time_ms=2_000_000),
        Decision(action="promoted", alias="champion", previous_version=1, version=3, time_ms=3_000_000),
    ]

    def champions(second: int) -> list[int | None]:
        return [decision.version for decision in aliases_at(moves, datetime.fromtimestamp(second, UTC))]

    assert [champions(second) for second in (999, 1000, 2500, 3000)] == [[], [1], [1], [3]]


def test_scripts_read_versions_and_decisions_as_json(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = new_registry()
    add_version(settings, registry, range(6))

    def printed(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["vit-vs-cnn", "registry", *arguments])
        main()
        return capsys.readouterr().out

    def read(*arguments: str) -> Any:
        return json.loads(printed(*arguments, "--json"))

    printed("promote", "1")
    assert [version["number"] for version in read("list")] == [1]
    assert [decision["target"] for decision in read("show", "champion")["decisions"]] == [1]
    assert [decision["alias"] for decision in read("history")] == ["champion"]
    assert read("history", "--at", "2001-02-03") == []
    assert "no version had an alias" in printed("history", "--at", "2001-02-03")
