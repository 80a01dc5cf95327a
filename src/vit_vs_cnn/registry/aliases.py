"""Changing an alias so that nothing is lost: one change at a time, each recorded before and after it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from vit_vs_cnn.core.errors import TransientError
from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.registry.audit import AuditLog, Decision
from vit_vs_cnn.registry.versions import CHALLENGER, CHAMPION, Registry
from vit_vs_cnn.tracking.outbox import now_ms

_LOCK_SECONDS = 120.0
_GIVEN_UP_MS = 10 * 60 * 1000


class Aliases:
    """The aliases of a registered model while no other process of this project changes them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.log = AuditLog(registry.client, registry.name)
        self.alias_targets = registry.aliases()

    def change(self, decision: Decision) -> None:
        """Record `decision` and point its alias to its target."""
        assert decision.target is not None
        # The record is there before the alias moves: what is killed in between is found and closed by the next one.
        run_id = self.log.begin(decision)
        self.log.log_figures(run_id, decision)
        self._registry.move(decision.alias, decision.target)
        self.log.end(run_id)
        self.alias_targets[decision.alias] = decision.target

    def reconcile(self) -> None:
        """Close what killed processes left, and record what somebody changed by hand."""
        for decision in self.log.unfinished():
            # The lock is this machine's: another one may be in the middle of it.
            if decision.host == socket.gethostname() or decision.time_ms < now_ms() - _GIVEN_UP_MS:
                happened = self.alias_targets.get(decision.alias) == decision.target
                self.log.end(decision.run_id, cut_off=decision.moves and not happened)
        for alias in (CHAMPION, CHALLENGER):
            last, holder = self.log.last_move(alias), self.alias_targets.get(alias)
            recorded = last.target if last else None
            if holder != recorded:
                self.log.add(Decision(action="changed by hand", alias=alias, origin=recorded, target=holder))


@contextmanager
def reconciled_aliases(registry: Registry) -> Iterator[Aliases]:
    """The aliases, with a history that is up to date, until the context ends; others wait for it.

    Raises TransientError where another process does not let go of them.
    """
    lock = FileLock(state_dir() / "registry" / f"{registry.name}.lock", timeout=_LOCK_SECONDS)
    (state_dir() / "registry").mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire()
    except Timeout:
        raise TransientError(f"{registry.name}: another process has been changing its aliases for minutes.") from None
    with lock:
        aliases = Aliases(registry)
        aliases.reconcile()
        yield aliases
