"""Changing an alias so that nothing is lost: one change at a time, each recorded before and after it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from vit_vs_cnn.errors import PassingError
from vit_vs_cnn.layout import state_dir
from vit_vs_cnn.tracking.decisions import Decision, DecisionLog
from vit_vs_cnn.tracking.journal import now_ms
from vit_vs_cnn.tracking.registry import CHALLENGER, CHAMPION, Registry

_LOCK_SECONDS = 120.0
_GIVEN_UP_MS = 10 * 60 * 1000


class Aliases:
    """The aliases of a registered model while no other process of this project changes them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.log = DecisionLog(registry.client, registry.name)
        self.holders = registry.aliases()

    def change(self, decision: Decision) -> None:
        """Record `decision` and point its alias to its target."""
        assert decision.target is not None
        # The record is there before the alias moves: what is killed in between is found and closed by the next one.
        run_id = self.log.begin(decision)
        self.log.log_figures(run_id, decision)
        self._registry.move(decision.alias, decision.target)
        self.log.end(run_id)
        self.holders[decision.alias] = decision.target

    def settle(self) -> None:
        """Close what killed processes left, and record what somebody changed by hand."""
        for decision in self.log.unfinished():
            # The lock is this machine's: another one may be in the middle of it.
            if decision.host == socket.gethostname() or decision.time_ms < now_ms() - _GIVEN_UP_MS:
                happened = self.holders.get(decision.alias) == decision.target
                self.log.end(decision.run_id, cut_off=decision.moves and not happened)
        for alias in (CHAMPION, CHALLENGER):
            last, holder = self.log.last_move(alias), self.holders.get(alias)
            recorded = last.target if last else None
            if holder != recorded:
                self.log.add(Decision(action="changed by hand", alias=alias, origin=recorded, target=holder))


@contextmanager
def settled_aliases(registry: Registry) -> Iterator[Aliases]:
    """The aliases, with a history that is up to date, until the context ends; others wait for it.

    Raises PassingError where another process does not let go of them.
    """
    lock = FileLock(state_dir() / "registry" / f"{registry.name}.lock", timeout=_LOCK_SECONDS)
    (state_dir() / "registry").mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire()
    except Timeout:
        raise PassingError(f"{registry.name}: another process has been changing its aliases for minutes.") from None
    with lock:
        aliases = Aliases(registry)
        aliases.settle()
        yield aliases
