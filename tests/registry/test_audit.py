"""What the history says of moves by hand, of killed commands, and of records that release 0.1 left."""

import json
from pathlib import Path
from typing import Any

import pytest

from factories import REGISTRY, add_version, new_registry
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.registry import audit
from vit_vs_cnn.registry.audit import Decision, looks_at, open_audit_log
from vit_vs_cnn.registry.promotion import promote, propose, rollback
from vit_vs_cnn.registry.versions import CHAMPION, Registry
from vit_vs_cnn.tracking.outbox import now_ms
from vit_vs_cnn.tracking.store import experiment


@pytest.fixture
def registry(settings: Settings, project: Path) -> Registry:
    """Three versions, of which the first is champion."""
    registry = new_registry()
    for wrong in (50, 40, 30):
        add_version(settings, registry, range(wrong))
    make_champion(registry, settings, 1)
    return registry


def make_champion(registry: Registry, settings: Settings, version: int) -> None:
    proposal = propose(registry, str(version), settings, PREPARED)
    assert proposal is not None
    promote(registry, proposal)


def history(registry: Registry) -> list[Decision]:
    with open_audit_log(registry) as log:
        return log.decisions()


def actions(registry: Registry) -> list[tuple[str, int | None, int | None]]:
    return [(decision.action, decision.previous_version, decision.version) for decision in history(registry)]


def test_a_move_by_hand_is_noticed_and_recorded_once(registry: Registry) -> None:
    registry.client.set_registered_model_alias(REGISTRY, CHAMPION, "2")
    assert actions(registry)[1:] == [("changed by hand", 1, 2)]
    assert len(actions(registry)) == 2
    registry.client.delete_registered_model_alias(REGISTRY, CHAMPION)
    assert actions(registry)[2:] == [("changed by hand", 2, None)]


def test_the_order_of_decisions_is_not_that_of_a_clock_which_somebody_sets_back(
    registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_champion(registry, settings, 2)
    monkeypatch.setattr(audit, "now_ms", lambda: now_ms() - 86_400_000)
    make_champion(registry, settings, 3)
    rollback(registry)
    moves = [("promoted", None, 1), ("promoted", 1, 2), ("promoted", 2, 3), ("rolled back", 3, 2)]
    assert actions(registry) == moves
    assert actions(registry) == moves


def test_a_record_that_a_killed_command_left_open_is_closed(registry: Registry) -> None:
    latest = registry.client.get_run(history(registry)[-1].run_id)
    open_run = registry.client.create_run(latest.info.experiment_id, tags=latest.data.tags)
    history(registry)
    assert registry.client.get_run(open_run.info.run_id).info.status == "FINISHED"


def test_a_command_that_is_killed_before_the_alias_moves_is_recorded_with_what_is_known(
    registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_champion(registry, settings, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "move", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_champion(registry, settings, 3)
        with pytest.raises(KeyboardInterrupt):
            rollback(registry)
    assert registry.aliases()[CHAMPION] == 2
    assert actions(registry)[2:] == [
        ("promoted", 2, 3),
        ("moved back", 3, 2),
        ("rolled back", 2, 1),
        ("moved back", 1, 2),
    ]
    assert history(registry)[3].reason == "by hand, or the command that recorded 'promoted' was stopped before the move"
    assert rollback(registry).version == 1, "version 3 never was champion"


def test_a_decision_by_an_unmeasured_value_can_be_read_again(registry: Registry, settings: Settings) -> None:
    unmeasured = add_version(settings, registry, [])
    registry.client.delete_model_version_tag(REGISTRY, str(unmeasured), "latency_p95_ms")
    strict = settings.model_copy(update={"gate": settings.gate.model_copy(update={"max_latency_p95_ms": 10.0})})
    proposal = propose(registry, str(unmeasured), strict, PREPARED)
    assert proposal is not None
    assert proposal.failed == "latency p95"
    promote(registry, proposal, force=True, reason="trusted")
    assert [outcome.value for outcome in history(registry)[-1].rules if outcome.state == "fail"] == [None]


@pytest.fixture
def old_record(registry: Registry) -> Any:
    """Write a record as release 0.1 did, which left it RUNNING until the alias had moved."""

    def write(action: str, previous: int, version: int, status: str) -> None:
        tags = {
            "decision.action": action,
            "decision.alias": CHAMPION,
            "decision.origin": str(previous),
            "decision.target": str(version),
            "decision.reason": "",
            "decision.forced": "true",
            "decision.moves": "true",
            "decision.rules": json.dumps(
                [{"rule": "accuracy", "measured": "1", "required": "2", "passed": False, "value": 1}]
            ),
            "decision.host": "old",
            "mlflow.user": "alice",
            "mlflow.note.content": "champion",
        }
        experiment_id = experiment(registry.client, f"{REGISTRY}-history").experiment_id
        run_id = registry.client.create_run(experiment_id, now_ms(), tags, "champion").info.run_id
        if status != "RUNNING":
            registry.client.set_terminated(run_id, status)

    return write


def test_a_record_of_a_killed_command_of_release_0_1_is_no_move(registry: Registry, old_record: Any) -> None:
    old_record("promoted", 1, 3, "KILLED")
    assert actions(registry)[1:] == [("promoted", 1, 3)]
    last = history(registry)[-1]
    assert (last.summary, last.failed, last.user, last.moves) == (
        "promoted, forced, cut off",
        "accuracy",
        "alice",
        False,
    )


@pytest.mark.parametrize("moved", [True, False])
def test_a_record_that_release_0_1_left_unfinished_is_compared_with_the_alias(
    registry: Registry, old_record: Any, moved: bool
) -> None:
    old_record("promoted", 1, 3, "RUNNING")
    if moved:
        registry.move(CHAMPION, 3)
    assert actions(registry)[1:] == [("promoted", 1, 3), *([] if moved else [("moved back", 3, 1)])]


def test_a_decision_of_release_0_1_counts_as_a_look_at_the_test_images_of_its_version(
    registry: Registry, old_record: Any
) -> None:
    old_record("refused", 1, 3, "FINISHED")
    decisions, versions = history(registry), registry.versions()
    assert decisions[-1].rules[0].state == "fail"
    assert looks_at("same", decisions, versions) == 2
    assert looks_at("other", decisions, versions) == 0


def test_a_rule_named_after_any_class_can_be_recorded(registry: Registry, make_settings: Any) -> None:
    settings = make_settings({"gate": {"min_recall": {"dog <b>": 0.5}}})
    make_champion(registry, settings, 2)
    decision = history(registry)[-1]
    assert "recall of dog <b>" in [outcome.rule for outcome in decision.rules]
    note = registry.client.get_run(decision.run_id).data.tags["mlflow.note.content"]
    assert "| recall of dog &lt;b&gt; |" in note
