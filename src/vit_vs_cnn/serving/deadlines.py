"""The time that a request may take, to arrive and again to be answered, and how little of it is left at the end."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.exceptions import HTTPException

# Well before uvicorn would cancel them without an answer.
_SECONDS_TO_STOP = 3.0


class Deadlines:
    """Gives each request `seconds`, and all that still run soon an answer once the server stops."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = math.inf
        self._running: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def limit(self, status: int, sentence: str) -> AsyncIterator[None]:
        """Limit what runs in the context. Raises HTTPException with this status where it takes longer."""
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(now + self.seconds, self._end)) as deadline:
                self._running.add(deadline)
                try:
                    yield
                finally:
                    self._running.discard(deadline)
        except TimeoutError:
            if self._end < math.inf:
                raise HTTPException(503, "The server stops: try again later.") from None
            raise HTTPException(status, sentence) from None

    def stop(self) -> None:
        """Bring all deadlines forward: the server stops."""
        self._end = asyncio.get_running_loop().time() + _SECONDS_TO_STOP
        for deadline in self._running:
            when = deadline.when()
            if when is not None and not deadline.expired():
                deadline.reschedule(min(when, self._end))
