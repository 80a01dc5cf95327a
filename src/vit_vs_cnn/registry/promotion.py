"""Promotion and rollback: which version is champion, each change a recorded decision."""

from pathlib import Path
from typing import cast, get_args

from vit_vs_cnn.config.gate import SelectBy
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import GateRejectedError, GateUndecidedError, UserError
from vit_vs_cnn.registry.audit import Action, AuditLog, Decision, looks_at, open_audit_log, rules_table
from vit_vs_cnn.registry.evidence import collect, judged_digest, on_same_images
from vit_vs_cnn.registry.gate import Judge
from vit_vs_cnn.registry.versions import CHAMPION, Registry, Version
from vit_vs_cnn.tracking.outbox import now_ms


def propose(registry: Registry, given: str, settings: Settings, prepared: Path) -> Decision | None:
    """Judge a version, a number or an alias, beside the champion: the promotion, which is neither made nor recorded.

    The metric is the one that its run chose by; all else of the gate is that of `settings`.

    None where the version is the champion. Raises UserError where the evidence to judge it is missing.
    """
    challenger = registry.version(given)
    chosen_by = challenger.tags.get("select_by")
    # A tag may hold anything.
    select_by = cast("SelectBy", chosen_by) if chosen_by in get_args(SelectBy) else settings.select_by
    with open_audit_log(registry) as log:
        champion, decisions = registry.aliases().get(CHAMPION), log.decisions()
    if challenger.number == champion:
        return None
    champions = []
    if champion:
        before = _best_before(registry, challenger, champion, decisions, select_by)
        champions = [registry.version(champion), *before]
    versions = [challenger, *champions]
    digest = judged_digest(versions, prepared)
    judge = Judge(settings.gate, select_by, settings.evaluate.confidence)
    collected = collect(registry, versions, prepared)
    rules = collected.rules + (judge.outcomes(*collected.evidence) if collected.evidence else ())
    judged = f"version {challenger.number} ({', '.join(filter(None, [challenger.contestant, challenger.replicate]))}), "
    judged += f"beside the champion, version {champion}" if champion else "the first champion"
    judged += "".join(f", and the best champion so far, version {best.number}" for best in champions[1:])
    if not on_same_images(versions):
        judged += f"; not all were evaluated on the same test images, so all are measured again on {prepared / 'test'}"
    judged += collected.sentence
    return Decision(
        action="promoted",
        alias=CHAMPION,
        previous_version=champion,
        version=challenger.number,
        rules=rules,
        judged=judged,
        test_digest=digest,
        look=1 + looks_at(digest, decisions, registry.versions()),
    )


def gate_report(registry: Registry, proposal: Decision, *, markdown: bool = False) -> str:
    """What the gate says of a proposed promotion, for a terminal or in Markdown."""
    verdict = "passes"
    if proposal.failed:
        verdict = f"does not pass: {proposal.failed}"
    elif proposal.undecided:
        verdict = "undecided"
    sentences = [proposal.undecided, f"Decision {proposal.look} of the gate that looks at these test images."]
    return "\n\n".join(
        [
            f"{registry.name}: {proposal.judged}: {verdict}.",
            rules_table(proposal.rules, markdown=markdown),
            " ".join(filter(None, sentences)),
        ]
    )


def promote(
    registry: Registry, proposal: Decision, *, force: bool = False, accept: bool = False, reason: str = ""
) -> Decision:
    """Make the challenger champion if it passes; the decision is recorded either way.

    `accept` promotes what the test images cannot decide, `force` also what a rule refuses. Raises GateRejectedError
    where it does not pass or the champion that it was judged against is none any more, GateUndecidedError where the
    test images cannot decide.
    """
    version, judged = proposal.version, proposal.previous_version
    with open_audit_log(registry) as log:
        champion = registry.aliases().get(CHAMPION)
        if champion != judged:
            overtaken = f"the champion became version {champion} while version {version} was judged against {judged}"
            _decline(registry, log, proposal, "overtaken", overtaken)
            raise GateRejectedError(f"{registry.name}: {overtaken}; nothing changed, promote it again.")
        subject = f"{registry.name}: version {version}"
        if proposal.failed and not force:
            _decline(registry, log, proposal, "refused", reason)
            raise GateRejectedError(f"{subject} is refused: {proposal.failed}. Nothing changed.")
        if proposal.undecided and not (accept or force):
            _decline(registry, log, proposal, "undecided", reason)
            raise GateUndecidedError(f"{subject}: {proposal.undecided} Nothing changed; a person may accept it.")
        overridden = {"forced": bool(proposal.failed), "accepted": bool(proposal.undecided)}
        decision = proposal.model_copy(update={"reason": reason, **overridden})
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
            promote = f"vit-vs-cnn registry promote --registry {registry.name}"
            raise UserError(f"{registry.name} has no champion; `{promote}` makes the first.")
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


def _best_before(
    registry: Registry, challenger: Version, champion: int, decisions: list[Decision], select_by: SelectBy
) -> list[Version]:
    """The champion before the present one that was better on the challenger's test images, if any, the best of them.

    Without it, many promotions could each lose a little, within the margin.
    """
    line, sign = set(champion_lineage(decisions)), -1.0 if select_by == "nll" else 1.0
    scores = {
        version: (sign * score, version.number == champion)
        for version in registry.versions()
        if version.number in line
        and version.test_digest == challenger.test_digest
        and (score := version.metric(select_by)) is not None
    }
    best = max(scores, key=lambda version: scores[version], default=challenger)
    return [] if best.number in (champion, challenger.number) else [best]


def _decline(registry: Registry, log: AuditLog, proposal: Decision, action: Action, reason: str) -> None:
    declined = proposal.model_copy(update={"action": action, "reason": reason})
    log.record(declined)
    _tag_version(registry, declined, action)


def _tag_version(registry: Registry, decision: Decision, outcome: str) -> None:
    assert decision.version is not None
    text = f"{outcome}: {decision.failed}" if decision.failed else outcome
    tags = {"gate.decision": text, "gate.time_ms": str(now_ms())}
    registry.tag(decision.version, tags | ({"gate.look": str(decision.look)} if decision.look else {}))
