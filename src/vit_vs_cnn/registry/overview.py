"""The registry for people: versions, one version with its decisions, the history."""

from collections.abc import Sequence
from datetime import UTC, datetime

from vit_vs_cnn.core.console import table
from vit_vs_cnn.registry.audit import Decision
from vit_vs_cnn.registry.versions import Version
from vit_vs_cnn.tracking.lineage import GIT_COMMIT_TAG


def version_table(versions: Sequence[Version]) -> str:
    """A line per version."""
    header = (
        "version",
        "contestant",
        "timm",
        "alias",
        "test accuracy",
        "interval",
        "p95",
        "size",
        "data",
        "git",
        "run",
    )
    return table([header, *(_version_row(each) for each in versions)], text_columns=4)


def version_page(version: Version, decisions: Sequence[Decision]) -> str:
    """Everything that is known of one version: what is written on it, and what was decided about it."""
    facts = {
        "aliases": ", ".join(version.aliases) or "none",
        "registered": _time(version.created_ms),
        "run": version.run_id,
        **version.tags,
    }
    width = max(len(name) for name in facts)
    lines = [f"version {version.number}", "", *(f"{name:<{width}}  {value}" for name, value in facts.items())]
    own = [each for each in decisions if version.number in {each.origin, each.target}]
    return "\n".join([*lines, "", history_table(own) if own else "No decision names it."])


def history_table(decisions: Sequence[Decision]) -> str:
    """A line per decision, the oldest first; below it the rules that it was refused or forced by."""
    header = ("when (UTC)", "who", "alias", "what", "from", "to", "reason")
    return table([header, *(_decision_row(each) for each in decisions)], text_columns=len(header))


def _version_row(version: Version) -> tuple[str, ...]:
    low, high = version.figure("accuracy_low"), version.figure("accuracy_high")
    tags = version.tags
    return (
        str(version.number),
        version.contestant,
        tags.get("timm", "?"),
        ", ".join(version.aliases) or "-",
        _figure(version, "accuracy", "{:.2%}"),
        "-" if low is None or high is None else f"{low:.2%} – {high:.2%}",
        _figure(version, "latency_p95_ms", "{:.1f} ms"),
        _figure(version, "size_mb", "{:.1f} MB"),
        tags.get("data.digest", "?")[:8],
        tags.get(GIT_COMMIT_TAG, "?")[:8] + ("+" if tags.get("git.dirty") == "true" else ""),
        version.run_id[:8],
    )


def _figure(version: Version, name: str, form: str) -> str:
    value = version.figure(name)
    return "-" if value is None else form.format(value)


def _decision_row(decision: Decision) -> tuple[str, ...]:
    failed = ", ".join(each.rule for each in decision.rules if not each.passed)
    what = f"{decision.action}{', forced' if decision.forced else ''}{', cut off' if decision.cut_off else ''}"
    return (
        _time(decision.time_ms),
        decision.user,
        decision.alias,
        what,
        str(decision.origin or "-"),
        str(decision.target or "-"),
        "; ".join(filter(None, [f"fails {failed}" if failed else "", decision.reason])),
    )


def _time(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
