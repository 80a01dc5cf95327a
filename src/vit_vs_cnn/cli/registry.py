"""The commands of the registry: its versions, who is champion, since when and why."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vit_vs_cnn.cli.options import json_option, registry_option
from vit_vs_cnn.core.console import printable, table
from vit_vs_cnn.core.errors import GateRejectedError, GateUndecidedError, UserError
from vit_vs_cnn.core.paths import PREPARED

if TYPE_CHECKING:
    from vit_vs_cnn.config.schema import Settings
    from vit_vs_cnn.registry.audit import Decision
    from vit_vs_cnn.registry.versions import Registry, Version

_EPILOG = """\b
Examples:
  vit-vs-cnn registry list
  vit-vs-cnn registry promote                    the challenger, if it passes the gate of params.yaml
  vit-vs-cnn registry promote 7 --dry-run        what the gate says of version 7
  vit-vs-cnn registry rollback --reason "wrong on night shots"
  vit-vs-cnn registry verify champion            measure it again from its commit and its data
"""

_reason = click.option("--reason", default="", help="The reason, which is recorded.")


@click.group(epilog=_EPILOG)
def registry() -> None:
    """The registered models: list, show, promote, roll back, history, verify, trust."""


@registry.command("list", epilog="\b\nExample:\n  vit-vs-cnn registry list --registry digits")
@registry_option
@json_option
def list_versions(given: str | None, as_json: bool) -> None:
    """List the versions of the registered model, the newest first."""
    opened, _ = _open(given)
    _decisions(opened)  # an alias that was moved by hand is recorded before it is shown
    versions = opened.versions()
    if as_json:
        click.echo(json.dumps([asdict(version) for version in versions], indent=2))
    else:
        _echo(f"{opened.name}\n\n{version_table(versions)}")


@registry.command(epilog="\b\nExamples:\n  vit-vs-cnn registry show champion\n  vit-vs-cnn registry show 3 --card")
@click.argument("version")
@click.option("--card", is_flag=True, help="Print its model card, as Markdown.")
@registry_option
@json_option
def show(version: str, card: bool, given: str | None, as_json: bool) -> None:
    """Show what is recorded of VERSION, a number or an alias: measurements, lineage, decisions."""
    opened, _ = _open(given)
    found = opened.version(version)
    if as_json:
        own = [decision for decision in _decisions(opened) if decision.names(found.number)]
        click.echo(json.dumps({**asdict(found), "decisions": [_record(decision) for decision in own]}, indent=2))
    else:
        _echo(found.card if card else f"{opened.name}, {version_page(found, _decisions(opened))}")


@registry.command(
    epilog="\b\nExamples:\n  vit-vs-cnn registry promote\n  vit-vs-cnn registry promote 3 --force --reason demo"
)
@click.argument("version", default="challenger")
@click.option("--dry-run", is_flag=True, help="Print the outcome of the gate and change nothing.")
@click.option("--accept", is_flag=True, help="Promote it where the gate is undecided; needs --reason, and is recorded.")
@click.option("--force", is_flag=True, help="Promote it though the gate refuses; needs --reason, and is recorded.")
@_reason
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Prepared data to judge on where the versions were evaluated on different images; default: data/prepared.",
)
@registry_option
def promote(
    version: str, dry_run: bool, accept: bool, force: bool, reason: str, data: Path | None, given: str | None
) -> None:
    """Make VERSION (default: the challenger) champion if it passes the gate: in params.yaml.

    Exit code 3: it does not pass, and nothing changed. Exit code 4: the gate is undecided, and nothing changed.
    """
    from vit_vs_cnn.registry import promotion

    if (accept or force) and not reason:
        option = "--force" if force else "--accept"
        raise UserError(f'{option}: give a reason, e.g. --reason "the old one is broken"; it is recorded.')
    prepared = data.absolute() if data else PREPARED
    opened, settings = _open(given)
    proposal = promotion.propose(opened, version, settings, prepared)
    if proposal is None:
        click.echo(f"{opened.name}: {version} is the champion already.")
        return
    _echo(f"{promotion.gate_report(opened, proposal)}\n")
    if not dry_run:
        decision = promotion.promote(opened, proposal, force=force, accept=accept, reason=reason)
        previous = decision.previous_version or "none"
        click.echo(f"version {decision.version} is the champion now{decision.how}; before: {previous}.")
    elif proposal.failed:
        raise GateRejectedError(f"{opened.name}: it would be refused: {proposal.failed}.")
    elif proposal.undecided:
        raise GateUndecidedError(f"{opened.name}: {proposal.undecided}")
    else:
        click.echo("It would become champion.")


@registry.command(epilog='\b\nExample:\n  vit-vs-cnn registry rollback --reason "wrong on night shots"')
@click.argument("version", required=False)
@_reason
@registry_option
def rollback(version: str | None, reason: str, given: str | None) -> None:
    """Make the champion before this one champion again, or VERSION."""
    from vit_vs_cnn.registry import promotion

    opened, _ = _open(given)
    decision = promotion.rollback(opened, version, reason)
    click.echo(f"{opened.name}: version {decision.version} is the champion again; before: {decision.previous_version}.")


@registry.command(epilog="\b\nExample:\n  vit-vs-cnn registry trust 3")
@click.argument("version")
@registry_option
def trust(version: str, given: str | None) -> None:
    """Sign VERSION, which was registered elsewhere or by an earlier release, so that it may be loaded here.

    A model file is a program: sign only what comes from somebody you trust.
    """
    from vit_vs_cnn.registry.loading import trust as sign

    opened, _ = _open(given)
    click.echo(f"{opened.name}: version {sign(opened, version).number} is signed and may be loaded now.")


@registry.command(epilog="\b\nExamples:\n  vit-vs-cnn registry history\n  vit-vs-cnn registry history --at 2026-05-01")
@click.option("--at", type=click.DateTime(), help="Show who was champion and challenger at this time (UTC).")
@registry_option
@json_option
def history(at: datetime | None, given: str | None, as_json: bool) -> None:
    """Show every change of an alias and every refusal, the oldest first."""
    opened, _ = _open(given)
    decisions = _decisions(opened)
    if at is not None:
        decisions = aliases_at(decisions, at.replace(tzinfo=UTC))
    if as_json:
        click.echo(json.dumps([_record(decision) for decision in decisions], indent=2))
    elif at is not None and not decisions:
        click.echo(f"{opened.name}: no version had an alias at {at:%Y-%m-%d %H:%M:%S}.")
    else:
        _echo(f"{opened.name}\n\n{history_table(decisions)}" if decisions else f"{opened.name}: no decision yet.")


@registry.command(epilog="\b\nExample:\n  vit-vs-cnn registry verify champion --retrain")
@click.argument("version", default="champion")
@click.option("--retrain", is_flag=True, help="Repeat its training too.")
@registry_option
def verify(version: str, retrain: bool, given: str | None) -> None:
    """Measure VERSION again from its commit, its parameters and its data, and compare with the records.

    Exit code 1: something differs.
    """
    from vit_vs_cnn.orchestration.verify import verify as measure_again

    opened, _ = _open(given)
    _echo(f"{opened.name}, {measure_again(opened, version, retrain=retrain, say=_echo)}")


def _echo(text: str) -> None:
    """Print what others may have written to the registry."""
    click.echo(printable(text, lines=True))


def version_table(versions: Sequence["Version"]) -> str:
    """The versions as a table, one per line."""
    from vit_vs_cnn.tracking.lineage import DIRTY_TAG, GIT_COMMIT_TAG

    facts = ("version", "contestant", "timm", "alias")
    header = (*facts, "test accuracy", "interval", "p95", "size", "data", "git", "run")
    rows = [
        (
            str(version.number),
            version.contestant,
            version.tags.get("timm", "?"),
            ", ".join(version.aliases) or "-",
            _number(version, "accuracy", "{:.2%}"),
            f"{_number(version, 'accuracy_low', '{:.2%}')} – {_number(version, 'accuracy_high', '{:.2%}')}",
            _number(version, "latency_p95_ms", "{:.1f} ms"),
            _number(version, "size_mb", "{:.1f} MB"),
            version.tags.get("data.digest", "?")[:8],
            version.tags.get(GIT_COMMIT_TAG, "?")[:8] + ("+" if version.tags.get(DIRTY_TAG) == "true" else ""),
            version.run_id[:8],
        )
        for version in versions
    ]
    return table([header, *rows], text_columns=len(facts))


def version_page(version: "Version", decisions: Sequence["Decision"]) -> str:
    """Everything that is recorded of a version, and the decisions that name it."""
    facts = {
        "aliases": ", ".join(version.aliases) or "none",
        "registered": _time(version.created_ms),
        "run": version.run_id,
        **version.tags,
    }
    width = max(map(len, facts))
    lines = [f"version {version.number}", "", *(f"{name:<{width}}  {value}" for name, value in facts.items())]
    own = [decision for decision in decisions if decision.names(version.number)]
    return "\n".join([*lines, "", history_table(own) if own else "No decision names it."])


def history_table(decisions: Sequence["Decision"]) -> str:
    """The decisions as a table, one per line, with the rules of the gate that were not met.

    `look` counts the decisions of the gate on the same test images.
    """
    header = ("when (UTC)", "who", "alias", "what", "from", "to", "look", "reason")
    rows = [
        (
            _time(decision.time_ms),
            decision.user,
            decision.alias,
            decision.summary,
            str(decision.previous_version or "-"),
            str(decision.version or "-"),
            str(decision.look or "-"),
            "; ".join(filter(None, [f"fails {decision.failed}" if decision.failed else "", decision.reason])),
        )
        for decision in decisions
    ]
    return table([header, *rows], text_columns=len(header))


def aliases_at(decisions: Sequence["Decision"], time: datetime) -> "list[Decision]":
    """The decision that gave each alias the version that it had at `time`; none for an alias that had no version."""
    before = (decision for decision in decisions if decision.moves and decision.time_ms <= 1000 * time.timestamp())
    last = {decision.alias: decision for decision in before}
    return [decision for decision in last.values() if decision.version is not None]


def _record(decision: "Decision") -> dict[str, object]:
    return decision.model_dump(mode="json", by_alias=True)


def _number(version: "Version", tag: str, form: str) -> str:
    value = version.metric(tag)
    return "-" if value is None else form.format(value)


def _time(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def _decisions(registry: "Registry") -> "list[Decision]":
    """The decisions of the registry, after what was changed by hand is recorded."""
    from vit_vs_cnn.registry.audit import open_audit_log

    with open_audit_log(registry) as log:
        return log.decisions()


def _open(given: str | None) -> "tuple[Registry, Settings]":
    from vit_vs_cnn.config.load import project_settings
    from vit_vs_cnn.registry.versions import Registry, resolve_model_name

    settings = project_settings()
    return Registry(resolve_model_name(given, settings.data.name)), settings
