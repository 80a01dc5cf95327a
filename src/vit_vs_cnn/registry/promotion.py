"""Promotion and rollback: who is champion."""

from dataclasses import dataclass
from pathlib import Path

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import table
from vit_vs_cnn.core.errors import GateRejectedError, UserError
from vit_vs_cnn.registry.aliases import reconciled_aliases
from vit_vs_cnn.registry.audit import Action, AuditLog, Decision, RuleOutcome, rules_table
from vit_vs_cnn.registry.evidence import collect
from vit_vs_cnn.registry.gate import judge
from vit_vs_cnn.registry.versions import CHAMPION, Registry, Version
from vit_vs_cnn.tracking.outbox import now_ms


@dataclass(frozen=True)
class Proposal:
    """A challenger and what the gate says of it beside the champion of that moment, None where there was none."""

    challenger: Version
    champion: Version | None
    rules: tuple[RuleOutcome, ...]
    note: str

    @property
    def passes(self) -> bool:
        """Whether it meets every rule."""
        return all(each.passed for each in self.rules)

    @property
    def failed(self) -> str:
        """The rules that it does not meet."""
        return ", ".join(each.rule for each in self.rules if not each.passed)

    def table(self) -> str:
        """The rules with their figures, for a terminal."""
        rows = [(each.rule, "pass" if each.passed else "FAIL", each.measured, each.required) for each in self.rules]
        rules = table([("rule", "", "measured", "required"), *rows], text_columns=4)
        return "\n".join([self.note, self._head(), "", rules] if self.note else [self._head(), "", rules])

    def markdown(self, name: str) -> str:
        """The rules with their figures, for a page."""
        verdict = "It passes." if self.passes else f"**It is refused:** {self.failed}."
        lines = [f"**{name}**: {self._head()}. {verdict}", self.note, rules_table(self.rules)]
        return "\n\n".join(filter(None, lines))

    def _head(self) -> str:
        against = f"beside the champion, version {self.champion.number}" if self.champion else "the first champion"
        return f"version {self.challenger.number} ({self.challenger.contestant}), {against}"


def propose(registry: Registry, version: str, settings: Settings, prepared: Path) -> Proposal | None:
    """Judge a version, a number or an alias, against the champion; None where it is the champion already.

    Nothing changes. Raises UserError where there is not the evidence to judge it.
    """
    challenger = registry.version(version)
    with reconciled_aliases(registry) as aliases:
        holder = aliases.alias_targets.get(CHAMPION)
    if challenger.number == holder:
        return None
    champion = registry.version(holder) if holder else None
    case = collect(registry, challenger, champion, prepared)
    rules = judge(case.challenger, case.champion, case.classes, settings.gate, settings.evaluate, settings.seed)
    return Proposal(challenger, champion, rules, case.note)


def promote(registry: Registry, proposal: Proposal, *, force: bool = False, reason: str = "") -> Decision:
    """Make the challenger champion if it passes, or if it is forced; the decision is recorded either way.

    Raises GateRejectedError where it does not pass, or where the champion that it was judged against is none any more.
    """
    decision = _decision(proposal, reason, forced=force and not proposal.passes)
    target, judged = decision.target, decision.origin
    with reconciled_aliases(registry) as aliases:
        holder = aliases.alias_targets.get(CHAMPION)
        if holder != judged:
            overtaken = f"the champion became version {holder} while version {target} was judged against {judged}"
            _refuse(registry, aliases.log, decision, "overtaken", overtaken)
            raise GateRejectedError(f"{registry.name}: {overtaken}; nothing changed, promote it again.")
        if not proposal.passes and not force:
            _refuse(registry, aliases.log, decision, "refused", reason)
            raise GateRejectedError(
                f"{registry.name}: version {target} is refused: {proposal.failed}. Nothing changed."
            )
        aliases.change(decision)
    _tell_on_version(registry, decision, "promoted, forced" if decision.forced else "promoted")
    return decision


def decline(registry: Registry, proposal: Proposal, reason: str) -> None:
    """Record that a person did not want the challenger as champion; nothing changes."""
    decision = _decision(proposal, reason, forced=False)
    with reconciled_aliases(registry) as aliases:
        _refuse(registry, aliases.log, decision, "declined", reason)


def rollback(registry: Registry, version: str | None = None, reason: str = "") -> Decision:
    """Make the champion before this one champion again, or the version given.

    Raises UserError where there is no earlier one.
    """
    wanted = registry.version(version).number if version else None
    with reconciled_aliases(registry) as aliases:
        holder = aliases.alias_targets.get(CHAMPION)
        if holder is None:
            raise UserError(f"{registry.name}: there is no champion; `vit-vs-cnn registry promote` makes the first.")
        there = {each.number for each in registry.versions()}
        earlier = [number for number in champion_lineage(aliases.log.decisions(CHAMPION))[:-1] if number in there]
        if wanted is None and not earlier:
            raise UserError(f"{registry.name}: version {holder} is the first champion; there is no earlier one.")
        target = wanted or earlier[-1]
        if target == holder:
            raise UserError(f"{registry.name}: version {target} is the champion already.")
        decision = Decision(action="rolled back", alias=CHAMPION, origin=holder, target=target, reason=reason)
        aliases.change(decision)
    _tell_on_version(registry, decision, "rolled back to")
    return decision


def champion_lineage(decisions: list[Decision]) -> list[int]:
    """The line of champions that leads to the present one, the last; what was rolled back is not in it."""
    line: list[int] = []
    for decision in decisions:
        if not decision.moves:
            continue
        if decision.target is None:
            line = []
        elif decision.action == "rolled back" and decision.target in line:
            line = line[: line.index(decision.target) + 1]
        elif line[-1:] != [decision.target]:
            line.append(decision.target)
    return line


def _decision(proposal: Proposal, reason: str, *, forced: bool) -> Decision:
    return Decision(
        action="promoted",
        alias=CHAMPION,
        origin=proposal.champion.number if proposal.champion else None,
        target=proposal.challenger.number,
        reason=reason,
        forced=forced,
        rules=proposal.rules,
    )


def _refuse(registry: Registry, log: AuditLog, decision: Decision, action: Action, reason: str) -> None:
    refused = decision.model_copy(update={"action": action, "reason": reason, "forced": False})
    log.add(refused)
    _tell_on_version(registry, refused, action)


def _tell_on_version(registry: Registry, decision: Decision, what: str) -> None:
    assert decision.target is not None
    failed = ", ".join(each.rule for each in decision.rules if not each.passed)
    registry.tag(
        decision.target, {"gate.decision": f"{what}{': ' + failed if failed else ''}", "gate.time_ms": str(now_ms())}
    )
