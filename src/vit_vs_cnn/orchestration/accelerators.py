"""The machine's accelerators, and which of them a stage computes on."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from vit_vs_cnn.layout import state_dir


def accelerators() -> list[str]:
    """The CUDA devices that this process may use, by the names that CUDA_VISIBLE_DEVICES takes; none: the CPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    answer = subprocess.run([tool, "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(index) for index in range(len(answer.stdout.splitlines()))] if answer.returncode == 0 else []


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
