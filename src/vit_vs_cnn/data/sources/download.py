"""Downloads through torchvision, with the timeout that it lacks and one error for whatever goes wrong."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from vit_vs_cnn.core.errors import TransientError

_TIMEOUT_SECONDS = 60.0


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
