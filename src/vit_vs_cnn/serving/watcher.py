"""The served model follows its alias: a thread that loads what the alias moved to, and swaps it in."""

import gc
import sys
import threading
from datetime import UTC, datetime

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.registry.loading import RegisteredModel, load_registered
from vit_vs_cnn.registry.versions import Registry

_SECONDS_BETWEEN_LOOKS = 1.0
_LOOKS_AFTER_A_FAILURE = 30


class AliasWatcher:
    """Has the version that `alias` (or a version number) of the registered model `name` means as `current`.

    Whoever serves a request reads `current` once and keeps to it. `trouble` is a sentence where the registry is away or
    the alias moved to what cannot be loaded: the model that is there goes on.
    """

    def __init__(self, name: str, alias: str) -> None:
        """Load the model. Raises UserError where there is none to begin with."""
        self.name, self.alias = name, alias
        self.current: RegisteredModel = load_registered(name, alias)
        self.since = datetime.now(UTC)
        self.trouble: str | None = None
        self._failed: int | None = None
        self._looks_to_skip = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)

    def start(self) -> None:
        """Follow the alias from now on; a version number never moves."""
        if not self.alias.isdecimal():
            self._thread.start()

    def stop(self) -> None:
        """Follow it no longer."""
        self._stopped.set()

    def _follow(self) -> None:
        while not self._stopped.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                self._look()
            except UserError as error:
                self._say(str(error))
            else:
                self._say(None)

    def _look(self) -> None:
        version = Registry(self.name).number_of(self.alias)
        if version == self.current.version:
            self._failed = None
            return
        if version == self._failed and self._looks_to_skip > 0:
            self._looks_to_skip -= 1
            raise UserError(self.trouble or "")
        try:
            new = load_registered(self.name, version)
        except UserError:
            self._failed, self._looks_to_skip = version, _LOOKS_AFTER_A_FAILURE
            raise
        self.current, self.since, self._failed = new, datetime.now(UTC), None
        # Graphs refer to themselves: without this the old model would stay in memory for a while.
        gc.collect()
        print(f"{self.name}: {self.alias} is version {version} now.", file=sys.stderr)

    def _say(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            print(f"warning: {trouble}" if trouble else f"{self.name}: the registry is well again.", file=sys.stderr)
