"""Promotion and rollback: which version is champion, each change a recorded decision."""

from pathlib import Path

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import GateRejectedError, UserError
from vit_vs_cnn.registry.audit import Action, AuditLog, Decision, open_audit_log, rules_table
from vit_vs_cnn.registry.evidence import collect, on_same_images
from vit_vs_cnn.registry.gate import judge
from vit_vs_cnn.registry.versions import CHAMPION, Registry
from vit_vs_cnn.tracking.outbox import now_ms


def propose(registry: Registry, given: str, settings: Settings, prepared: Path) -> Decision | None:
    """Judge a version, a number or an alias, beside the champion: the promotion, which is neither made nor recorded.

    None where the version is the champion. Raises UserError where the evidence to judge it is missing.
    """
    challenger = registry.version(given)
    with open_audit_log(registry):
        champion = registry.aliases().get(CHAMPION)
    if challenger.number == champion:
        return None
    versions = [challenger, *([registry.version(champion)] if champion else [])]
    evidence = collect(registry, versions, prepared)
    rules = judge(evidence[0], evidence[1] if champion else None, settings.gate, settings.evaluate, settings.seed)
    judged = f"version {challenger.number} ({challenger.contestant}), "
    judged += f"beside the champion, version {champion}" if champion else "the first champion"
    if not on_same_images(versions):
        judged += f"; it was evaluated on other test images, so both are measured again on {prepared / 'test'}"
    return Decision(
        action="promoted",
        alias=CHAMPION,
        previous_version=champion,
        version=challenger.number,
        rules=rules,
        judged=judged,
    )


def gate_report(registry: Registry, proposal: Decision, *, markdown: bool = False) -> str:
    """What the gate says of a proposed promotion, for a terminal or in Markdown."""
    verdict = f"does not pass: {proposal.failed}" if proposal.failed else "passes"
    return f"{registry.name}: {proposal.judged}: {verdict}.\n\n{rules_table(proposal.rules, markdown=markdown)}"


def promote(registry: Registry, proposal: Decision, *, force: bool = False, reason: str = "") -> Decision:
    """Make the challenger champion if it passes, or if it is forced; the decision is recorded either way.

    Raises GateRejectedError where it does not pass, or where the champion that it was judged against is none any more.
    """
    version, judged = proposal.version, proposal.previous_version
    with open_audit_log(registry) as log:
        champion = registry.aliases().get(CHAMPION)
        if champion != judged:
            overtaken = f"the champion became version {champion} while version {version} was judged against {judged}"
            _decline(registry, log, proposal, "overtaken", overtaken)
            raise GateRejectedError(f"{registry.name}: {overtaken}; nothing changed, promote it again.")
        if proposal.failed and not force:
            _decline(registry, log, proposal, "refused", reason)
            raise GateRejectedError(
                f"{registry.name}: version {version} is refused: {proposal.failed}. Nothing changed."
            )
        decision = proposal.model_copy(update={"reason": reason, "forced": bool(proposal.failed)})
        log.move(decision)
    _tag_version(registry, decision, decision.summary)
    return decision


def decline(registry: Registry, proposal: Decision, reason: str) -> None:
    """Record that a person did not want the challenger as champion; nothing changes."""
    with open_audit_log(registry) as log:
        _decline(registry, log, proposal, "declined", reason)


def rollback(registry: Registry, given: str | None = None, reason: str = "") -> Decision:
    """Make the champion before this one champion again, or the version given.

    Raises UserError where there is no earlier one.
    """
    with open_audit_log(registry) as log:
        champion = registry.aliases().get(CHAMPION)
        if champion is None:
            raise UserError(f"{registry.name} has no champion; `vit-vs-cnn registry promote` makes the first.")
        if given is not None:
            version = registry.version(given).number
        else:
            existing = {version.number for version in registry.versions()}
            earlier = [number for number in champion_lineage(log.decisions())[:-1] if number in existing]
            if not earlier:
                raise UserError(f"{registry.name}: version {champion} is the first champion; there is no earlier one.")
            version = earlier[-1]
        if version == champion:
            raise UserError(f"{registry.name}: version {version} is the champion already.")
        decision = Decision(
            action="rolled back", alias=CHAMPION, previous_version=champion, version=version, reason=reason
        )
        log.move(decision)
    _tag_version(registry, decision, "rolled back to")
    return decision


def champion_lineage(decisions: list[Decision]) -> list[int]:
    """The champions that led to the present one, the last, without those that were rolled back."""
    line: list[int] = []
    for decision in decisions:
        if decision.alias != CHAMPION or not decision.moves:
            continue
        if decision.version is None:
            line = []
        elif decision.action in {"rolled back", "moved back"} and decision.version in line:
            line = line[: line.index(decision.version) + 1]
        elif line[-1:] != [decision.version]:
            line.append(decision.version)
    return line


def _decline(registry: Registry, log: AuditLog, proposal: Decision, action: Action, reason: str) -> None:
    declined = proposal.model_copy(update={"action": action, "reason": reason})
    log.record(declined)
    _tag_version(registry, declined, action)


def _tag_version(registry: Registry, decision: Decision, outcome: str) -> None:
    assert decision.version is not None
    text = f"{outcome}: {decision.failed}" if decision.failed else outcome
    registry.tag(decision.version, {"gate.decision": text, "gate.time_ms": str(now_ms())})
