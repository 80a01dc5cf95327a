"""Hot swap: a thread that loads the version that the alias moved to and swaps it in."""

import gc
import sys
import threading
from datetime import UTC, datetime

from prometheus_client import Gauge, Info

from vit_vs_cnn.core.errors import UserError, first_line
from vit_vs_cnn.registry.loading import RegisteredModel, load_registered
from vit_vs_cnn.registry.versions import Registry

_SECONDS_BETWEEN_CHECKS = 1.0
_CHECKS_BEFORE_RETRY = 30

_MODEL = Info("vit_vs_cnn_model", "The model served.")
_SINCE = Gauge("vit_vs_cnn_model_since_seconds", "When it was loaded, as a Unix timestamp.")


class AliasWatcher:
    """Holds the version that `alias` (or a version number) of the registered model `name` points to as `current`.

    A request reads `current` once and keeps to it. `last_error` is a sentence while the registry is unreachable or the
    alias points to a version that cannot be loaded: the current model stays.
    """

    def __init__(self, name: str, alias: str) -> None:
        """Load the model. Raises UserError where that is impossible."""
        self.name, self.alias = name, alias
        self.last_error: str | None = None
        # A version that does not load, and why: it is not tried again at every look.
        self._failed: int | None = None
        self._reason = ""
        self._checks_to_skip = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._use(load_registered(name, alias))

    def start(self) -> None:
        """Watch the alias from now on; a version number never moves."""
        if not self.alias.isdecimal():
            self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()

    def _use(self, model: RegisteredModel) -> None:
        self.current, self.since = model, datetime.now(UTC)
        _MODEL.info({"name": model.name, "version": str(model.version), "contestant": model.contestant})
        _SINCE.set(self.since.timestamp())

    def _watch(self) -> None:
        while not self._stopped.wait(_SECONDS_BETWEEN_CHECKS):
            error = None
            try:
                self._check()
            except UserError as raised:
                error = str(raised)
            # A full disk, too many open files: the thread must live on, and /health say so.
            except Exception as raised:
                error = f"{self.name}: {self.alias} cannot be read: {type(raised).__name__}: {first_line(raised)}."
            if error != self.last_error:
                self.last_error = error
                print(f"warning: {error}" if error else f"{self.name}: the registry works again.", file=sys.stderr)

    def _check(self) -> None:
        version = Registry(self.name).number_of(self.alias)
        if version == self.current.version:
            self._failed = None
        elif version == self._failed and self._checks_to_skip > 0:
            self._checks_to_skip -= 1
            raise UserError(self._reason)
        else:
            self._failed, self._checks_to_skip = version, _CHECKS_BEFORE_RETRY
            try:
                self._use(load_registered(self.name, version))
            except UserError as error:
                self._reason = str(error)
                raise
            # Graphs refer to themselves: without this the old model would stay in memory for a while.
            gc.collect()
            print(f"{self.name}: {self.alias} is version {version} now.", file=sys.stderr)
