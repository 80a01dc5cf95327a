"""The threads that decode: ordinary requests never wait behind images of a size that takes seconds."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from vit_vs_cnn.registry.loading import RegisteredModel
from vit_vs_cnn.serving.uploads import ServerLimits, Upload, count_pixels, decode_uploads, parse_invocation

_MOST_DECODERS = 4
# A photograph of a phone, or many small images.
_LARGE_PIXELS = 16_000_000
_MOST_LARGE = 8

Result = TypeVar("Result")


class Decoders:
    """Decodes the bodies of requests; large images take one core, and the memory of one request, at a time."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._ordinary = ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_DECODERS), thread_name_prefix="decode")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="decode-large")
        self._large_requests = 0

    async def uploads(self, uploads: list[Upload], model: RegisteredModel) -> NDArray[np.uint8]:
        """The images as uint8 (N, S, S, 3).

        Raises HTTPException for a file that cannot be decoded (400), for too many pixels (413), and where too many
        large requests wait (503).
        """
        arguments = (decode_uploads, uploads, model.image_size, model.decoding)
        pixels = await _in_thread(self._ordinary, count_pixels, uploads, self._limits)
        if pixels <= _LARGE_PIXELS:
            return await _in_thread(self._ordinary, *arguments)
        if self._large_requests >= _MOST_LARGE:
            raise HTTPException(503, "The server is decoding too many large images: try again later.")
        self._large_requests += 1
        try:
            return await _in_thread(self._large, *arguments)
        finally:
            self._large_requests -= 1

    async def invocation(self, body: bytes, model: RegisteredModel) -> NDArray[np.uint8]:
        """The images of MLflow's protocol as uint8 (N, S, S, 3). Raises HTTPException where it is not followed."""
        return await _in_thread(self._ordinary, parse_invocation, body, model.image_size, self._limits.images)

    def shutdown(self) -> None:
        """Decode nothing more."""
        for pool in (self._ordinary, self._large):
            pool.shutdown(wait=False, cancel_futures=True)


async def _in_thread(pool: ThreadPoolExecutor, function: Callable[..., Result], *arguments: Any) -> Result:
    return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
