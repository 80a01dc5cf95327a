"""The flow that promotes, without Prefect's server: what becomes of what the gate cannot decide."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from factories import REGISTRY, REPOSITORY, add_version, new_registry
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.registry.audit import open_audit_log
from vit_vs_cnn.registry.promotion import promote, propose
from vit_vs_cnn.registry.versions import CHAMPION, Registry


@pytest.fixture
def registry(settings: Settings, project: Path) -> Registry:
    """A champion, and a version that is right on as many images, but on others."""
    registry = new_registry()
    for wrong in (range(6), range(6, 12)):
        add_version(settings, registry, wrong)
    first = propose(registry, "1", settings, PREPARED)
    assert first is not None
    promote(registry, first)
    return registry


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """flows/promote.py, whose artifact no server takes."""
    spec = importlib.util.spec_from_file_location("promote_flow", REPOSITORY / "flows/promote.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "create_markdown_artifact", lambda *_, **__: None)
    return module


def set_params(project: Path, before: str, after: str) -> None:
    params = project / "params.yaml"
    assert before in params.read_text()
    params.write_text(params.read_text().replace(before, after))


def unattended(flow: ModuleType) -> Any:
    return flow.promote.fn("2", REGISTRY, unattended=True)


def test_unattended_the_champion_stays_where_the_gate_is_undecided(registry: Registry, flow: ModuleType) -> None:
    state = unattended(flow)
    assert (state.type.value, state.name) == ("FAILED", "Undecided")
    assert "cannot exclude a loss of 1.29 points" in state.message
    assert registry.aliases()[CHAMPION] == 1


def test_unattended_the_settings_may_accept_what_is_undecided(
    registry: Registry, flow: ModuleType, project: Path
) -> None:
    set_params(project, "undecided: keep", "undecided: accept")
    state = unattended(flow)
    assert state.message == "tiny-classifier: version 2 is the champion now, accepted undecided."
    with open_audit_log(registry) as log:
        last = log.decisions()[-1]
    assert (last.accepted, last.forced, last.reason) == (True, False, "gate.undecided: accept")


@pytest.mark.parametrize(("reason", "name"), [("seen by eye", "Completed"), ("", "Undecided")])
def test_a_person_accepts_in_the_form_with_a_reason(
    registry: Registry, flow: ModuleType, monkeypatch: pytest.MonkeyPatch, reason: str, name: str
) -> None:
    answer: Callable[..., Any] = lambda **_: flow.Approval(approve=True, accept=True, reason=reason)  # noqa: E731
    monkeypatch.setattr(flow, "pause_flow_run", answer)
    monkeypatch.setattr(flow, "get_run_logger", lambda: __import__("logging").getLogger("test"))
    assert flow.promote.fn("2", REGISTRY).name == name
    assert registry.aliases()[CHAMPION] == (2 if reason else 1)
