"""Promotions and rollbacks that are killed at any moment: the next command finds the registry whole and goes on."""

from pathlib import Path

import pytest

from factories import add_version, new_registry
from harness.counts import asked, seeded
from harness.forked_commands import Forks
from harness.kills import KILLS, Killer
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.registry.audit import open_audit_log
from vit_vs_cnn.registry.versions import CHAMPION, Registry

VERSIONS = 3


def test_killed_changes_of_the_champion_are_made_by_the_next_command_or_not_at_all(
    settings: Settings, project: Path, tmp_path: Path, forks: Forks, capsys: pytest.CaptureFixture[str]
) -> None:
    """VIT_VS_CNN_KILLS=200 is the whole measure."""
    registry = new_registry()
    for wrong in range(VERSIONS):
        add_version(settings, registry, range(10 * wrong))
    seconds = forks.call(project, "registry", "promote", "1", "--force", "--reason", "first").processor_seconds
    killer = Killer(tmp_path, project, seeded())
    for number in range(asked(KILLS, 4, 0.2)):
        before = champion(registry)
        target = killer.random.choice([version for version in range(1, VERSIONS + 1) if version != before])
        way = killer.random.choice(["promote", "rollback"])
        change = ("registry", way, str(target), "--reason", str(number)) + (("--force",) if way == "promote" else ())
        command = forks.start(project, *change)
        if killer.kill_after(command, killer.random.uniform(0, 1.2 * seconds)):
            killer.done[way] += 1
            assert champion(registry) in (before, target)
            assert last_move(registry) == champion(registry)
            if champion(registry) != target:
                forks.call(project, *change)
        assert champion(registry) == target
        assert last_move(registry) == target
    assert killer.done
    with capsys.disabled():
        print(f"\n{sum(killer.done.values())} kills: {dict(killer.done)}")
    client = registry.client
    runs = client.search_runs([found.experiment_id for found in client.search_experiments()])
    assert {run.info.status for run in runs} == {"FINISHED"}


def champion(registry: Registry) -> int | None:
    return registry.aliases().get(CHAMPION)


def last_move(registry: Registry) -> int | None:
    """Where the champion is by its history, which the next command has made complete."""
    with open_audit_log(registry) as log:
        return [found.version for found in log.decisions() if found.alias == CHAMPION and found.moves][-1]
