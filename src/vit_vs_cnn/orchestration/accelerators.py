"""How many stages compute at once on this machine, and which accelerators each of them gets."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from filelock import FileLock, Timeout

from vit_vs_cnn.core.devices import accelerators
from vit_vs_cnn.core.paths import state_dir


def slots(each: int = 1) -> int:
    """How many stages may compute at once on this machine if each takes `each` accelerators; one on a CPU."""
    return max(1, len(accelerators()) // each)


def slot_name() -> str:
    """The tag, and Prefect's concurrency limit of it, under which this machine's slots are counted."""
    return f"accelerator-{socket.gethostname()}"


@contextmanager
def free_accelerators(wanted: int) -> Iterator[dict[str, str]]:
    """Free accelerators as environment variables for one stage; empty where none is wanted or there is no choice.

    The slot has been taken before, so there are enough unless somebody raised the limit: then some are shared.
    """
    devices = accelerators() if wanted else []
    if len(devices) < 2:
        yield {}
        return
    folder = state_dir() / "accelerators"
    folder.mkdir(parents=True, exist_ok=True)
    taken: list[str] = []
    with ExitStack() as held:
        for device in devices:
            lock = FileLock(folder / f"{device}.lock")
            try:
                if len(taken) < wanted:
                    held.enter_context(lock.acquire(timeout=0))
                    taken.append(device)
            except Timeout:
                continue
        shared = [device for device in devices if device not in taken][: max(0, wanted - len(taken))]
        yield {"CUDA_VISIBLE_DEVICES": ",".join(taken + shared)}
