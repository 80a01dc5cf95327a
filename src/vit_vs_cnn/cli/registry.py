"""The commands of the registry: who is champion, since when and why."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vit_vs_cnn.cli.project import project_settings

if TYPE_CHECKING:
    from vit_vs_cnn.config.schema import Settings
    from vit_vs_cnn.registry.versions import Registry

_EPILOG = """\b
Examples:
  vit-vs-cnn registry list
  vit-vs-cnn registry promote                    the challenger, if it passes the gate of params.yaml
  vit-vs-cnn registry promote 7 --dry-run        what the gate says of version 7
  vit-vs-cnn registry rollback --reason "wrong on night shots"
  vit-vs-cnn registry verify champion            measure it again from its commit and its data
"""

_registry = click.option(
    "--registry",
    "given",
    metavar="NAME",
    help="The registered model or its data set; default: that of params.yaml, or the only one there is.",
)
_format = click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
_reason = click.option("--reason", default="", help="Why; it is recorded.")


@click.group(epilog=_EPILOG)
def registry() -> None:
    """The registered models: list, show, promote, roll back, history, verify."""


@registry.command("list", epilog="\b\nExample:\n  vit-vs-cnn registry list --registry digits")
@_registry
@_format
def list_versions(given: str | None, form: str) -> None:
    """List the versions of the registered model, the newest first."""
    from dataclasses import asdict

    from vit_vs_cnn.registry.aliases import reconciled_aliases
    from vit_vs_cnn.registry.overview import version_table

    opened, _ = _open(given)
    with reconciled_aliases(opened):
        versions = opened.versions()
    if form == "json":
        click.echo(json.dumps([{**asdict(each), "tags": dict(each.tags)} for each in versions], indent=2))
    else:
        click.echo(f"{opened.name}\n\n{version_table(versions)}")


@registry.command(epilog="\b\nExamples:\n  vit-vs-cnn registry show champion\n  vit-vs-cnn registry show 3 --card")
@click.argument("version")
@click.option("--card", is_flag=True, help="Its model card, as Markdown.")
@_registry
def show(version: str, card: bool, given: str | None) -> None:
    """Show what is known of VERSION, a number or an alias: figures, lineage, decisions."""
    from vit_vs_cnn.registry.aliases import reconciled_aliases
    from vit_vs_cnn.registry.overview import version_page

    opened, _ = _open(given)
    found = opened.version(version)
    if card:
        click.echo(found.card)
        return
    with reconciled_aliases(opened) as aliases:
        click.echo(f"{opened.name}, {version_page(found, aliases.log.decisions())}")


@registry.command(
    epilog="\b\nExamples:\n  vit-vs-cnn registry promote\n  vit-vs-cnn registry promote 3 --force --reason demo"
)
@click.argument("version", default="challenger")
@click.option("--dry-run", is_flag=True, help="Only say what the gate says.")
@click.option("--force", is_flag=True, help="Promote though the gate refuses; needs --reason, and is recorded.")
@_reason
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Prepared data to judge on where the versions were evaluated on different images; default: data/prepared.",
)
@_registry
def promote(version: str, dry_run: bool, force: bool, reason: str, data: Path | None, given: str | None) -> None:
    """Make VERSION (default: the challenger) champion if it passes the gate: in params.yaml.

    Exit code 3: it does not pass, and nothing changed.
    """
    from vit_vs_cnn.core.errors import GateRejectedError, UserError
    from vit_vs_cnn.core.paths import PREPARED
    from vit_vs_cnn.registry.promotion import promote as decide
    from vit_vs_cnn.registry.promotion import propose

    if force and not reason:
        raise UserError('--force: say why, e.g. --reason "the old one is broken"; it is recorded.')
    prepared = data.absolute() if data else PREPARED
    opened, settings = _open(given)
    proposal = propose(opened, version, settings, prepared)
    if proposal is None:
        click.echo(f"{opened.name}: {version} is the champion already.")
        return
    click.echo(f"{opened.name}, {proposal.table()}\n")
    if dry_run:
        if not proposal.passes:
            raise GateRejectedError(f"{opened.name}: it would be refused: {proposal.failed}.")
        click.echo("It would become champion.")
        return
    decision = decide(opened, proposal, force=force, reason=reason)
    how = " by force" if decision.forced else ""
    click.echo(f"version {decision.target} is the champion now{how}; before: {decision.origin or 'none'}.")


@registry.command(epilog='\b\nExample:\n  vit-vs-cnn registry rollback --reason "wrong on night shots"')
@click.argument("version", required=False)
@_reason
@_registry
def rollback(version: str | None, reason: str, given: str | None) -> None:
    """Make the champion before this one champion again, or VERSION."""
    from vit_vs_cnn.registry.promotion import rollback as roll_back

    opened, _ = _open(given)
    decision = roll_back(opened, version, reason)
    click.echo(f"{opened.name}: version {decision.target} is the champion again; before: {decision.origin}.")


@registry.command(epilog="\b\nExample:\n  vit-vs-cnn registry history --format json")
@_registry
@_format
def history(given: str | None, form: str) -> None:
    """Show every change of an alias and every refusal, the oldest first."""
    from vit_vs_cnn.registry.aliases import reconciled_aliases
    from vit_vs_cnn.registry.overview import history_table

    opened, _ = _open(given)
    with reconciled_aliases(opened) as aliases:
        decisions = aliases.log.decisions()
    if form == "json":
        click.echo(json.dumps([each.model_dump(mode="json") for each in decisions], indent=2))
    else:
        click.echo(f"{opened.name}\n\n{history_table(decisions)}" if decisions else f"{opened.name}: no decision yet.")


@registry.command(epilog="\b\nExample:\n  vit-vs-cnn registry verify champion --retrain")
@click.argument("version", default="champion")
@click.option("--retrain", is_flag=True, help="Run its training again too.")
@_registry
def verify(version: str, retrain: bool, given: str | None) -> None:
    """Measure VERSION again from its commit, its parameters and its data, and compare with what was recorded.

    Exit code 1: something differs.
    """
    from vit_vs_cnn.orchestration.verify import verify as measure_again

    opened, _ = _open(given)
    click.echo(f"{opened.name}, {measure_again(opened, version, retrain=retrain, say=click.echo)}")


def _open(given: str | None) -> "tuple[Registry, Settings]":
    from vit_vs_cnn.registry.versions import Registry, readable_store_errors, resolve_model_name

    settings = project_settings()
    with readable_store_errors("the same command"):
        return Registry(resolve_model_name(given, settings.data.name)), settings
