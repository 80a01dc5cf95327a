"""The record of every change of an alias: one MLflow run per decision, in an experiment beside the data set's.

A record is begun before the alias moves and ended after it, so what a killed process left says which of the two
happened. Records are only ever added.
"""

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from vit_vs_cnn.tracking.lineage import user_name
from vit_vs_cnn.tracking.outbox import now_ms
from vit_vs_cnn.tracking.store import experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Action = Literal["registered", "promoted", "refused", "declined", "overtaken", "rolled back", "changed by hand"]
_MOVES = ("registered", "promoted", "rolled back", "changed by hand")
_PAGE = 500


class RuleOutcome(BaseModel):
    """One rule of the gate: what was measured, what is required, as people read it, and the number itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    measured: str
    required: str
    passed: bool
    value: float


class Decision(BaseModel):
    """What was decided of an alias: from version `origin` to version `target`, by whom and why.

    `origin` or `target` is None where the alias pointed nowhere; of what was refused `target` is what was asked for.
    `cut_off` says that the process died before the alias moved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action
    alias: str
    origin: int | None
    target: int | None
    reason: str = ""
    forced: bool = False
    rules: tuple[RuleOutcome, ...] = ()
    user: str = ""
    host: str = ""
    time_ms: int = 0
    run_id: str = ""
    cut_off: bool = False

    @property
    def moves(self) -> bool:
        """Whether the alias points to `target` after it."""
        return self.action in _MOVES and not self.cut_off


_RULES = TypeAdapter(tuple[RuleOutcome, ...])


def rules_table(rules: Sequence[RuleOutcome]) -> str:
    """The rules with their figures as a Markdown table."""
    rows = [
        f"| {each.rule} | {'pass' if each.passed else '**fail**'} | {each.measured} | {each.required} |"
        for each in rules
    ]
    return "\n".join(["| rule | | measured | required |", "|---|---|---|---|", *rows])


class AuditLog:
    """The decisions on the registered model `name`."""

    def __init__(self, client: "MlflowClient", name: str) -> None:
        self._client = client
        self._experiment_id = str(experiment(client, f"{name}-history").experiment_id)

    def begin(self, decision: Decision) -> str:
        """Record what is about to happen; returns the id of the record's run, which stays open until `end`."""
        tags = {
            "decision.action": decision.action,
            "decision.alias": decision.alias,
            "decision.origin": str(decision.origin or ""),
            "decision.target": str(decision.target or ""),
            "decision.reason": decision.reason,
            "decision.forced": str(decision.forced).lower(),
            "decision.moves": str(decision.moves).lower(),
            "decision.rules": _RULES.dump_json(decision.rules).decode(),
            "decision.host": socket.gethostname(),
            "mlflow.user": user_name(),
            "mlflow.note.content": _note(decision),
        }
        title = f"{decision.alias} {decision.action}" + (f" v{decision.target}" if decision.target else "")
        return str(self._client.create_run(self._experiment_id, now_ms(), tags, title).info.run_id)

    def end(self, run_id: str, *, cut_off: bool = False) -> None:
        """Close a record: the alias has moved, or, where its process was cut off before, never did."""
        self._client.set_terminated(run_id, "KILLED" if cut_off else "FINISHED")

    def add(self, decision: Decision) -> str:
        """Record something that needs nothing more to happen; returns the id of the record's run."""
        run_id = self.begin(decision)
        self.log_figures(run_id, decision)
        self.end(run_id)
        return run_id

    def log_figures(self, run_id: str, decision: Decision) -> None:
        """The rules' numbers as metrics, so that MLflow's pages chart them."""
        from mlflow.entities import Metric

        figures = [Metric(each.rule.replace("'", ""), each.value, now_ms(), 0) for each in decision.rules]
        if figures:
            self._client.log_batch(run_id, metrics=figures)

    def decisions(self, alias: str | None = None) -> list[Decision]:
        """All ended decisions, or those on one alias, the oldest first."""
        condition = "attributes.status != 'RUNNING'" + (f" and tags.`decision.alias` = '{alias}'" if alias else "")
        return [_decision(run) for run in self._search(condition)]

    def last_move(self, alias: str) -> Decision | None:
        """The newest decision that moved `alias`."""
        condition = f"attributes.status = 'FINISHED' and tags.`decision.alias` = '{alias}'"
        found = self._client.search_runs(
            [self._experiment_id],
            f"{condition} and tags.`decision.moves` = 'true'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return _decision(found[0]) if found else None

    def unfinished(self) -> list[Decision]:
        """Decisions that were begun and not ended, the oldest first."""
        return [_decision(run) for run in self._search("attributes.status = 'RUNNING'")]

    def _search(self, condition: str) -> "list[Run]":
        runs: list[Any] = []
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                condition,
                max_results=_PAGE,
                order_by=["attributes.start_time"],
                page_token=token,
            )
            runs += page
            token = page.token
            if not token:
                return runs


def _decision(run: "Run") -> Decision:
    tags = run.data.tags
    return Decision(
        action=tags["decision.action"],  # type: ignore[arg-type]
        alias=tags["decision.alias"],
        origin=_number(tags["decision.origin"]),
        target=_number(tags["decision.target"]),
        reason=tags["decision.reason"],
        forced=tags["decision.forced"] == "true",
        rules=_RULES.validate_json(tags["decision.rules"]),
        user=tags.get("mlflow.user", ""),
        host=tags["decision.host"],
        time_ms=run.info.start_time,
        run_id=run.info.run_id,
        cut_off=run.info.status == "KILLED",
    )


def _number(text: str) -> int | None:
    return int(text) if text else None


def _note(decision: Decision) -> str:
    lines = [f"{decision.alias}: {_name(decision.origin)} → {_name(decision.target)}, {decision.action}."]
    if decision.forced:
        lines.append("**Forced** in spite of the gate.")
    if decision.reason:
        lines.append(f"Reason: {decision.reason}")
    if decision.rules:
        lines += ["", rules_table(decision.rules)]
    return "\n".join(lines)


def _name(number: int | None) -> str:
    return f"version {number}" if number else "none"
