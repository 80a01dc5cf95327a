"""The delivery of outboxes to the tracking store, by the process that fills one or by one process for a whole run.

MLflow takes a second to import, so a stage that runs by itself delivers its records, and the stages of a run leave that
to the run's `Deliverer`, which is this module as a process: it delivers until its standard input ends.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from vit_vs_cnn.core.errors import UserError, first_line, without_password
from vit_vs_cnn.core.paths import main_root
from vit_vs_cnn.core.process import exit_with_parent, stop_tree
from vit_vs_cnn.tracking.outbox import Event, Outbox, outbox_dir, pending_outboxes
from vit_vs_cnn.tracking.store import MissingRunError, deliver, deliver_event, open_client, store_errors, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFERRED_VARIABLE = "VIT_VS_CNN_DEFER_DELIVERY"
_SECONDS_AFTER_FAILURE = 60.0
# MLflow's codes of an error that another attempt will not change, e.g. of a run that somebody has deleted.
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_FOR_AN_ANSWER = 5.0


def is_deferred() -> bool:
    """Whether another process delivers what this one records."""
    return bool(os.environ.get(DEFERRED_VARIABLE))


def undelivered(failure: Exception) -> str:
    """The sentence about records that stay pending."""
    store = without_password(tracking_uri())
    return (
        f"the tracking store {store} could not be written ({first_line(failure)}); nothing is lost, `vit-vs-cnn sync` "
        "delivers it later."
    )


class Delivery:
    """Delivers outboxes to the store. Where that cannot be reached it waits a minute before the next attempt."""

    def __init__(self) -> None:
        self._client: MlflowClient | None = None
        self._failure: Exception | None = None
        self._next_attempt = 0.0

    def deliver(self, outbox: Outbox, *not_in_outbox: Event, now: bool = False) -> bool:
        """Deliver what is pending and then these events. Returns whether the store has all of it.

        With `now` it does not wait after an earlier failure.
        """
        if not now and time.monotonic() < self._next_attempt:
            return False
        self._failure = None
        with outbox.delivery():
            if not outbox.pending and not not_in_outbox:
                return True
            failures: tuple[type[Exception], ...] = (UserError, *store_errors())
            self._next_attempt = 0.0
            try:
                self._client = self._client or open_client()
                run_id = deliver(outbox, self._client)
                for event in not_in_outbox:
                    deliver_event(event, outbox.folder, self._client, run_id)
            except MissingRunError as error:
                self._failure = error
            except failures as error:
                self._failure = error
                if _is_away(error):
                    self._next_attempt = time.monotonic() + _SECONDS_AFTER_FAILURE
        return self._failure is None

    def finish(self, outbox: Outbox, *, now: bool = True) -> Exception | None:
        """Deliver what is pending and close the outbox. Returns why it stays, if the store did not take all of it."""
        outbox.close(remove=self.deliver(outbox, now=now))
        return self._failure

    def finish_all(self, *, deferred: bool = False) -> list[Exception | None]:
        """Deliver what is pending of earlier runs: for each outbox None, or why it stays.

        Where the store cannot be reached, the outboxes after the first wait for the next attempt. A run whose process
        was killed ends as KILLED. With `deferred` the runs that others record now are delivered as far as they are, if
        their writers leave that to others.
        """
        outcomes = []
        for outbox in pending_outboxes(deferred=deferred):
            outbox.end_killed_run()
            outcomes.append(self.finish(outbox, now=False))
        return outcomes


class Deliverer:
    """A context manager: a process that delivers what stages with `DEFERRED_VARIABLE` record, while they do."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            exit_with_parent(__name__),
            cwd=main_root(),
            env=dict(self._environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._process.poll() is None:
                self.finish()
        finally:
            stop_tree(self._process)

    def finish(self) -> str:
        """Wait until all is delivered. Returns the sentence about what is not, empty where there is none."""
        said, _ = self._process.communicate()
        failed = "the records of this run were not all delivered; `vit-vs-cnn sync` delivers them."
        return failed if self._process.returncode else said.strip()


def sync() -> tuple[int, int]:
    """Deliver what is pending of earlier runs: the number of outboxes delivered, and of those still pending.

    Raises UserError where nothing could be delivered.
    """
    outcomes = Delivery().finish_all()
    failures = [failure for failure in outcomes if failure]
    if failures and len(failures) == len(outcomes):
        raise UserError(
            f"the tracking store {tracking_uri()} cannot be written ({first_line(failures[0])}); {len(failures)} runs "
            f"are pending in {outbox_dir()}, nothing is lost."
        )
    return len(outcomes) - len(failures), len(failures)


def _is_away(error: Exception) -> bool:
    """Whether it is the store that failed: one that refuses these records takes those of others."""
    if isinstance(error, FileNotFoundError) or getattr(error, "error_code", "") in _REFUSALS:
        return False
    uri = tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return True
    import httpx

    try:
        answer = httpx.get(f"{uri.rstrip('/')}/health", timeout=_SECONDS_FOR_AN_ANSWER)
    except (httpx.HTTPError, httpx.InvalidURL):
        return True
    return answer.is_server_error


def _deliver_until_input_ends() -> None:
    delivery, at_end = Delivery(), False
    while not at_end:
        at_end = bool(select.select([sys.stdin], [], [], _SECONDS_BETWEEN_LOOKS)[0])
        if at_end:
            delivery = Delivery()  # that does not wait after an earlier failure
        failures = [failure for failure in delivery.finish_all(deferred=True) if failure]
    if failures:
        print(undelivered(failures[0]))


if __name__ == "__main__":
    _deliver_until_input_ends()
