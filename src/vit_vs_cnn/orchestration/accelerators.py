"""The accelerators of this machine, shared by the stages of all runs: at most one stage at a time on each.

Prefect's concurrency limit `accelerator-<host>` counts them, one on a machine that has none; lock files say which of
them are free.
"""

import os
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vit_vs_cnn.core.devices import accelerators
from vit_vs_cnn.core.errors import RunError, TransientError, first_line
from vit_vs_cnn.orchestration.stage_process import is_stopping

# The shortest lease that Prefect knows: the slots of a process that was killed are free after it.
_LEASE_SECONDS = 60.0
_SECONDS_BETWEEN_LOOKS = 1.0

# Of the stages of this process that wait only one asks the server: each question costs it some CPU.
_asking = threading.Lock()
# How many slots the stages of this process hold.
_held = Counter[str]()


def limit_name() -> str:
    """The name of Prefect's concurrency limit for this machine."""
    return f"accelerator-{socket.gethostname()}"


def slots(count: int) -> int:
    """How many slots of the limit a stage takes that computes on `count` accelerators; one on a CPU."""
    return max(1, min(count, len(accelerators())))


def ensure_limit() -> None:
    """Create the concurrency limit; where there is one it stays, because a person may have changed it."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectAlreadyExists

    limit = GlobalConcurrencyLimitCreate(name=limit_name(), limit=max(1, len(accelerators())))
    with suppress(ObjectAlreadyExists), get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(limit)


@contextmanager
def use_accelerators(count: int, say: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """Hold `count` accelerators for a stage, 0 for one that needs none; yields the environment variables naming them.

    Waits until they are free, and says so where others have them. Raises RunError where the run is stopped meanwhile,
    TransientError where Prefect's server is too busy to answer.
    """
    if count == 0:
        yield {}
        return
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
    from prefect.concurrency.sync import concurrency

    name, wanted = limit_name(), slots(count)
    with ExitStack() as held:
        with _turn_to_ask():
            _wait_for_slots(wanted, say)
            try:
                held.enter_context(concurrency(name, wanted, lease_duration=_LEASE_SECONDS))
            except ConcurrencySlotAcquisitionError as error:
                sentence = f"{first_line(error)}: Prefect's server is too busy; start the run again."
                raise TransientError(sentence) from error
            _held[name] += wanted
        try:
            yield held.enter_context(free_accelerators(count))
        finally:
            _held[name] -= wanted


@contextmanager
def _turn_to_ask() -> Iterator[None]:
    """Wait for this process's turn to ask the server. Raises RunError where the run is stopped."""
    while not _asking.acquire(timeout=_SECONDS_BETWEEN_LOOKS):
        if is_stopping():
            raise _stopped()
    try:
        yield
    finally:
        _asking.release()


def _wait_for_slots(wanted: int, say: Callable[[str], None]) -> None:
    """Wait until slots are free. Raises RunError where the run is stopped, which Prefect's own waiting ignores."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        said = False
        while not is_stopping():
            limit = client.read_global_concurrency_limit_by_name(limit_name())
            if not limit.active or limit.active_slots + wanted <= limit.limit:
                return
            if not said and limit.active_slots > _held[limit_name()]:
                say(f"waiting: {limit.active_slots} of {limit.limit} slots of {limit_name()} are taken")
                said = True
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    raise _stopped()


def _stopped() -> RunError:
    return RunError("stopped while it waited for an accelerator; starting the run again continues it.")


@contextmanager
def free_accelerators(count: int) -> Iterator[dict[str, str]]:
    """Free accelerators as environment variables for one stage; empty where there is no choice.

    The slots are held, so there are enough unless a person raised the limit: then some are shared.
    """
    devices = accelerators()
    if len(devices) < 2:
        yield {}
        return
    # Not in the project: every flow run of a remote worker has its own clone.
    folder = Path(tempfile.gettempdir()) / f"vit-vs-cnn-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    free: list[str] = []
    with ExitStack() as held:
        for device in devices:
            if len(free) < count:
                with suppress(Timeout):
                    held.enter_context(FileLock(folder / f"{device}.lock", timeout=0))
                    free.append(device)
        shared = [device for device in devices if device not in free][: count - len(free)]
        yield {"CUDA_VISIBLE_DEVICES": ",".join(free + shared)}
