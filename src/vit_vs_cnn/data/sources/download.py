"""Downloads through torchvision, with the timeout that it lacks and one error for whatever goes wrong."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from vit_vs_cnn.core.errors import TransientError
from vit_vs_cnn.core.records import digest_of
from vit_vs_cnn.data.object_store import downloads_dir

_TIMEOUT_SECONDS = 60.0


@contextmanager
def one_download(path: Path) -> Iterator[None]:
    """Let one run at a time download to `path`: another one waits, and finds what it left."""
    downloads_dir().mkdir(parents=True, exist_ok=True)
    with FileLock(downloads_dir() / f"{digest_of(str(path.absolute()).encode())[:16]}.lock"):
        yield


@contextmanager
def download_errors(failed: str, remedy: str) -> Iterator[None]:
    """Raise TransientError, `failed` with the reason and the `remedy`, where a download inside fails or hangs."""
    previous = socket.getdefaulttimeout()
    # torchvision sets no timeout: behind a silent firewall it would wait for ever.
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        yield
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise TransientError(f"{failed} ({' '.join(str(error).split())}): {remedy}.") from None
    finally:
        socket.setdefaulttimeout(previous)
