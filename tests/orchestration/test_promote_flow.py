"""What the answer in the form of `vit-vs-cnn/promote` does to the registry."""

from pathlib import Path
from runpy import run_path

import pytest

from factories import REPOSITORY, add_version, new_registry
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.registry.audit import open_audit_log
from vit_vs_cnn.registry.promotion import promote, propose
from vit_vs_cnn.registry.versions import CHAMPION


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
    registry = new_registry()
    for wrong in (20, 80):
        version = add_version(settings, registry, range(wrong))
        proposal = propose(registry, str(version), settings, PREPARED)
        assert proposal is not None
        if version == 1:
            promote(registry, proposal)
    flow = run_path(str(REPOSITORY / "flows/promote.py"))
    assert flow["carry_out"](flow["Approval"](**answer), registry, proposal).name == state
    assert registry.aliases()[CHAMPION] == champion
    with open_audit_log(registry) as log:
        assert log.decisions()[-1].summary == recorded
