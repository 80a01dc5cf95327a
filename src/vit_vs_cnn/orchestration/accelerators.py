"""How many stages compute at once on this machine, and which accelerator each of them gets."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from vit_vs_cnn.devices import accelerators
from vit_vs_cnn.layout import state_dir


def slots() -> int:
    """How many stages may compute at once on this machine: one per accelerator, one on a CPU."""
    return max(1, len(accelerators()))


def slot_name() -> str:
    """The tag, and Prefect's concurrency limit of it, under which this machine's slots are counted."""
    return f"accelerator-{socket.gethostname()}"


@contextmanager
def accelerator(*, wanted: bool) -> Iterator[dict[str, str]]:
    """A free accelerator as environment variables for one stage; empty where none is wanted or there is no choice.

    The slot has been taken before, so one is free unless somebody raised the limit: then the first one is shared.
    """
    devices = accelerators() if wanted else []
    if len(devices) < 2:
        yield {}
        return
    folder = state_dir() / "accelerators"
    folder.mkdir(parents=True, exist_ok=True)
    for device in devices:
        lock = FileLock(folder / f"{device}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        with lock:
            yield {"CUDA_VISIBLE_DEVICES": device}
        return
    yield {"CUDA_VISIBLE_DEVICES": devices[0]}
