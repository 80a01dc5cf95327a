"""The history of a registered model's aliases: one MLflow run per decision, in the experiment `<name>-history`.

A decision is recorded before its alias moves, so there is no move without its record. A command that is killed in
between leaves the alias where it was; the next command records that. Records are only ever added.
"""

import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout
from pydantic import ConfigDict, Field, TypeAdapter, model_validator

from vit_vs_cnn.core.console import markdown_text, table
from vit_vs_cnn.core.errors import TransientError
from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.core.records import Record
from vit_vs_cnn.registry.versions import CHALLENGER, CHAMPION, Registry, Version
from vit_vs_cnn.tracking.lineage import user_name
from vit_vs_cnn.tracking.outbox import now_ms
from vit_vs_cnn.tracking.store import experiment

if TYPE_CHECKING:
    from mlflow.entities import Run

Action = Literal[
    "registered",
    "promoted",
    "refused",
    "undecided",
    "declined",
    "overtaken",
    "passed over",
    "rolled back",
    "moved back",
    "changed by hand",
]
State = Literal["pass", "warn", "undecided", "fail"]
_WITHOUT_MOVE = ("refused", "undecided", "declined", "overtaken", "passed over")
_LOCK_SECONDS = 120.0


class RuleOutcome(Record):
    """One rule of the gate: what was measured, what is required, as people read it, and the number itself.

    `value` is None where a record was read of a version that lacks this measurement. `note` is a sentence on a rule
    that the test images cannot decide.
    """

    rule: str
    measured: str
    required: str
    state: State
    value: float | None
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _read_earlier_records(cls, values: Any) -> Any:
        """Records of releases that had two outcomes say `passed: true` or `false`."""
        if isinstance(values, Mapping) and "passed" in values:
            rest = {key: value for key, value in values.items() if key != "passed"}
            return {**rest, "state": "pass" if values["passed"] else "fail"}
        return values


class Decision(Record):
    """A decision on an alias: from `previous_version` to `version`, by whom, why, and by which rules.

    Either is None where the alias points nowhere. Of what was refused, `version` is the one that was asked for.
    `judged` says which versions were judged on which images, whose digest is `test_digest`; `look` counts the decisions
    on these images, this one included. `forced` says that a refusal was overridden, `accepted` that a version was
    promoted that the images could not decide on. `cut_off` is only in histories of release 0.1: the command was killed
    before the alias moved.
    """

    # The tags of a run have more, and other names for the versions; so has the JSON of `registry history`.
    model_config = ConfigDict(extra="ignore", validate_by_name=True)

    action: Action
    alias: str
    previous_version: int | None = Field(None, validation_alias="origin", serialization_alias="origin")
    version: int | None = Field(None, validation_alias="target", serialization_alias="target")
    reason: str = ""
    forced: bool = False
    accepted: bool = False
    rules: tuple[RuleOutcome, ...] = ()
    judged: str = ""
    test_digest: str = ""
    look: int = 0
    user: str = ""
    host: str = ""
    time_ms: int = 0
    run_id: str = ""
    cut_off: bool = False

    @property
    def moves(self) -> bool:
        """Whether the alias points to `version` after it."""
        return self.action not in _WITHOUT_MOVE and not self.cut_off

    @property
    def how(self) -> str:
        """What a person has to know of how a version was promoted, the end of a sentence; mostly nothing."""
        return " by force" if self.forced else ", accepted undecided" if self.accepted else ""

    def names(self, version: int) -> bool:
        """Whether it is about this version."""
        return version in {self.previous_version, self.version}

    @property
    def failed(self) -> str:
        """The rules that the version does not meet, separated by commas."""
        return ", ".join(outcome.rule for outcome in self.rules if outcome.state == "fail")

    @property
    def undecided(self) -> str:
        """What the test images do not decide, in sentences; empty where a rule fails, which decides."""
        return "" if self.failed else " ".join(outcome.note for outcome in self.rules if outcome.state == "undecided")

    @property
    def summary(self) -> str:
        """The action, with what was special about it."""
        special = {"forced": self.forced, "accepted": self.accepted, "cut off": self.cut_off}
        return ", ".join([self.action, *(name for name, holds in special.items() if holds)])


_RULES = TypeAdapter(tuple[RuleOutcome, ...])


class AuditLog:
    """The decisions on the aliases of `registry`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        about = f"Who moved which alias of {registry.name}, when and why: `vit-vs-cnn registry history`."
        self._experiment_id = str(experiment(registry.client, f"{registry.name}-history", about).experiment_id)

    def decisions(self) -> list[Decision]:
        """All decisions, the oldest first."""
        return [_decision_of(run) for run in self._runs()]

    def record(self, decision: Decision) -> None:
        """Add a record of `decision`; the numbers of its rules become metrics, which MLflow charts."""
        from mlflow.entities import Metric

        client, earlier = self._registry.client, self._runs(order="DESC", max_results=1)
        # They are read in the order of their times, also where somebody has set the clock back.
        time_ms = max([now_ms(), *(run.info.start_time + 1 for run in earlier)])
        title = f"{decision.alias} {decision.action}" + (f" v{decision.version}" if decision.version else "")
        run_id = client.create_run(self._experiment_id, time_ms, _tags_of(decision), title).info.run_id
        values = {outcome.rule: outcome.value for outcome in decision.rules if outcome.value is not None}
        # A rule may be named after a class, which can have any name.
        metrics = [Metric(re.sub(r"[^\w ./-]", "_", rule), value, time_ms, 0) for rule, value in values.items()]
        if metrics:
            client.log_batch(run_id, metrics=metrics)
        client.set_terminated(run_id)

    def move(self, decision: Decision) -> None:
        """Record `decision`, then point its alias to its version."""
        assert decision.version is not None
        self.record(decision)
        self._registry.move(decision.alias, decision.version)

    def reconcile(self) -> None:
        """Record where an alias is not where its last recorded move put it; end the records of killed commands."""
        for run in self._runs("attributes.status = 'RUNNING'"):
            self._registry.client.set_terminated(run.info.run_id)
        decisions, targets = self.decisions(), self._registry.aliases()
        for alias in (CHAMPION, CHALLENGER):
            moves = [decision for decision in decisions if decision.alias == alias and decision.moves]
            recorded, target = (moves[-1].version if moves else None), targets.get(alias)
            if target == recorded:
                continue
            found = Decision(action="changed by hand", alias=alias, previous_version=recorded, version=target)
            if moves and target == moves[-1].previous_version:
                reason = f"by hand, or the command that recorded {moves[-1].action!r} was stopped before the move"
                found = found.model_copy(update={"action": "moved back", "reason": reason})
            self.record(found)

    def _runs(self, condition: str = "", order: str = "ASC", max_results: int = 100_000) -> "list[Run]":
        import mlflow
        from mlflow.entities import ViewType

        ordered = [f"attributes.start_time {order}"]
        runs = mlflow.search_runs([self._experiment_id], condition, ViewType.ACTIVE_ONLY, max_results, ordered, "list")
        assert isinstance(runs, list)
        return runs


@contextmanager
def open_audit_log(registry: Registry) -> Iterator[AuditLog]:
    """The audit log, reconciled with the aliases; until the context ends other processes wait for it.

    Raises TransientError where another process holds it for minutes.
    """
    folder = state_dir() / "registry"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{registry.name}.lock", timeout=_LOCK_SECONDS)
    try:
        acquired = lock.acquire()
    except Timeout:
        raise TransientError(f"{registry.name}: another process has been changing its aliases for minutes.") from None
    with acquired:
        log = AuditLog(registry)
        log.reconcile()
        yield log


def looks_at(digest: str, decisions: Sequence[Decision], versions: Sequence[Version]) -> int:
    """How many decisions of the gate were made on the test images with this digest.

    Records of earlier releases do not say on which images; those were the ones that the version was evaluated on.
    """
    digests = {version.number: version.test_digest for version in versions}
    return sum(
        (decision.test_digest or digests.get(decision.version or 0)) == digest
        for decision in decisions
        if decision.rules
    )


def rules_table(outcomes: Sequence[RuleOutcome], *, markdown: bool = False) -> str:
    """The outcomes as a table for a terminal, or in Markdown."""
    header = ("rule", "", "measured", "required")
    rows = [
        (found.rule, "FAIL" if found.state == "fail" else found.state, found.measured, found.required)
        for found in outcomes
    ]
    if markdown:
        cells = (header, ("---",) * len(header), *(map(markdown_text, row) for row in rows))
        return "\n".join(f"| {' | '.join(row)} |" for row in cells)
    return table([header, *rows], text_columns=len(header))


def _tags_of(decision: Decision) -> dict[str, str]:
    previous, version = (str(number or "") for number in (decision.previous_version, decision.version))
    note = [
        f"{decision.alias}: version {previous or 'none'} → {version or 'none'}, {decision.summary}.",
        decision.judged,
        f"Reason: {decision.reason}" if decision.reason else "",
        decision.undecided,
        f"Decision {decision.look} of the gate that looks at these test images." if decision.look else "",
    ]
    rules = [rules_table(decision.rules, markdown=True)] if decision.rules else []
    return {
        "decision.action": decision.action,
        "decision.alias": decision.alias,
        "decision.origin": previous,
        "decision.target": version,
        "decision.reason": decision.reason,
        "decision.forced": str(decision.forced).lower(),
        "decision.accepted": str(decision.accepted).lower(),
        "decision.moves": str(decision.moves).lower(),
        "decision.rules": _RULES.dump_json(decision.rules).decode(),
        "decision.judged": decision.judged,
        "decision.test_digest": decision.test_digest,
        "decision.look": str(decision.look or ""),
        "decision.host": socket.gethostname(),
        "mlflow.user": user_name(),
        "mlflow.note.content": "\n\n".join([*map(markdown_text, filter(None, note)), *rules]),
    }


def _decision_of(run: "Run") -> Decision:
    # A tag without a text stands for none.
    tags = {key.removeprefix("decision."): text for key, text in run.data.tags.items() if text}
    recorded = {
        "rules": _RULES.validate_json(tags.pop("rules")),
        "user": tags.get("mlflow.user", ""),
        "time_ms": run.info.start_time,
        "run_id": run.info.run_id,
        "cut_off": run.info.status == "KILLED",
    }
    return Decision.model_validate(tags | recorded)
