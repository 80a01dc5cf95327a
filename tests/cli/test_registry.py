"""What the commands of the registry print."""

from pathlib import Path

from factories import add_version, new_registry
from vit_vs_cnn.cli.registry import history_table, version_page, version_table
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.registry.audit import open_audit_log
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
