"""What the answer in the form of `vit-vs-cnn/promote` does to the registry, and what happens without a person."""

from collections.abc import Collection
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from factories import REGISTRY, REPOSITORY, add_version, new_registry
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.registry.audit import Decision, open_audit_log
from vit_vs_cnn.registry.promotion import promote, propose
from vit_vs_cnn.registry.versions import CHAMPION, Registry

WORSE = (range(20), range(80))
# As many wrong, but other images.
UNDECIDED = (range(6), range(6, 12))


def champion_and_proposal(
    settings: Settings, wrong: tuple[Collection[int], Collection[int]]
) -> tuple[Registry, Decision]:
    """The first version as champion, and the proposal of the second; they are wrong on these images."""
    registry = new_registry()
    for images in wrong:
        version = add_version(settings, registry, images)
        proposal = propose(registry, str(version), settings, PREPARED)
        assert proposal is not None
        if version == 1:
            promote(registry, proposal)
    return registry, proposal


def last_decision(registry: Registry) -> Decision:
    with open_audit_log(registry) as log:
        return log.decisions()[-1]


def promote_flow() -> dict[str, Any]:
    return run_path(str(REPOSITORY / "flows/promote.py"))


@pytest.mark.parametrize(
    ("answer", "state", "recorded", "champion"),
    [
        ({"reason": "because"}, "Declined", "declined", 1),
        ({"approve": True}, "Refused", "refused", 1),
        ({"approve": True, "reason": "the old one is broken"}, "Refused", "refused", 1),
        ({"approve": True, "force": True}, "Failed", "promoted", 1),
        ({"approve": True, "force": True, "reason": "the old one is broken"}, "Completed", "promoted, forced", 2),
    ],
)
def test_only_force_with_a_reason_makes_a_failing_version_champion(
    answer: dict[str, object], state: str, recorded: str, champion: int, settings: Settings, project: Path
) -> None:
    registry, proposal = champion_and_proposal(settings, WORSE)
    flow = promote_flow()
    assert flow["carry_out"](flow["Approval"](**answer), registry, proposal).name == state
    assert registry.aliases()[CHAMPION] == champion
    assert last_decision(registry).summary == recorded


@pytest.mark.parametrize(
    ("answer", "state", "recorded", "champion"),
    [
        ({"approve": True, "reason": "seen by eye"}, "Undecided", "undecided", 1),
        ({"approve": True, "accept": True}, "Failed", "promoted", 1),
        ({"approve": True, "accept": True, "reason": "seen by eye"}, "Completed", "promoted, accepted", 2),
    ],
)
def test_only_accepting_with_a_reason_makes_an_undecided_version_champion(
    answer: dict[str, object], state: str, recorded: str, champion: int, settings: Settings, project: Path
) -> None:
    registry, proposal = champion_and_proposal(settings, UNDECIDED)
    flow = promote_flow()
    assert flow["carry_out"](flow["Approval"](**answer), registry, proposal).name == state
    assert registry.aliases()[CHAMPION] == champion
    assert last_decision(registry).summary == recorded


@pytest.mark.parametrize(
    ("undecided", "state", "recorded", "champion"),
    [("keep", "Undecided", "undecided", 1), ("accept", "Completed", "promoted, accepted", 2)],
)
def test_without_a_person_the_settings_say_what_becomes_of_an_undecided_version(
    undecided: str,
    state: str,
    recorded: str,
    champion: int,
    settings: Settings,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry, _ = champion_and_proposal(settings, UNDECIDED)
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("undecided: keep", f"undecided: {undecided}"))
    run = promote_flow()["promote"].fn
    # There is no server that takes the artifact.
    monkeypatch.setitem(run.__globals__, "create_markdown_artifact", lambda *_, **__: None)
    ended = run("2", REGISTRY, unattended=True)
    assert ended.name == state
    assert registry.aliases()[CHAMPION] == champion
    assert last_decision(registry).summary == recorded
    assert last_decision(registry).reason == ("gate.undecided: accept" if undecided == "accept" else "")
