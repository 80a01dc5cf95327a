"""What a request may ask of the server, and how it is told that it asked for too much."""

from dataclasses import dataclass

_RETRY_AFTER_SECONDS = "1"


@dataclass(frozen=True)
class Limits:
    """Of one request: `body` bytes, `images` and `seconds`; of all together: `waiting` images in the queue.

    A request over one of the first is refused for good, one that finds the queue full may come again.
    """

    body: int = 16 * 2**20
    images: int = 64
    seconds: float = 30.0
    waiting: int = 256

    @property
    def bodies(self) -> int:
        """Bytes that the bodies in memory may have together."""
        return 16 * self.body


class Refused(Exception):  # noqa: N818 - it reads as what happened
    """The answer to a request that is not served: an HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = {"Retry-After": _RETRY_AFTER_SECONDS} if status == 503 else {}
