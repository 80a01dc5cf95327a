"""Dynamic batching: requests that arrive together share one call of the model."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Gauge, Histogram
from starlette.exceptions import HTTPException

from vit_vs_cnn.registry.loading import BATCH

_CALL_IMAGES = Histogram("vit_vs_cnn_call_images", "Images in a call of the model.", buckets=(1, 2, 4, 8, 16, 32, 64))
_WAITING_IMAGES = Gauge("vit_vs_cnn_waiting_images", "Images in the queue.")

Results = TypeVar("Results")


@dataclass(frozen=True, eq=False)
class _Job:
    function: Callable[[NDArray[np.uint8]], Any]
    images: NDArray[np.uint8]
    answer: asyncio.Future[Any]


class Batcher:
    """A bounded queue of images, and the task that calls the models with them, one call at a time.

    While a call runs, requests queue up; the next call takes all of them, up to `BATCH` images. An idle model is called
    at once: there is no delay in which to wait for more requests.
    """

    def __init__(self, queue_size: int) -> None:
        """`queue_size` bounds the queue, in images."""
        self._queue_size = queue_size
        self._jobs: deque[_Job] = deque()
        # Its own thread, the same at each call: PyTorch keeps a pool of workers per thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._arrived = asyncio.Event()
        _WAITING_IMAGES.set_function(self._waiting_images)

    async def call(self, function: Callable[[NDArray[np.uint8]], Results], images: NDArray[np.uint8]) -> Results:
        """The results of `function`, one per image, for uint8 images (N, S, S, 3); jobs of one function share a call.

        Raises HTTPException 503 where the queue is full; a request larger than the queue is accepted when it is empty.
        """
        waiting = self._waiting_images()
        if waiting and waiting + len(images) > self._queue_size:
            raise HTTPException(503, "The queue is full: try again later.")
        job = _Job(function, images, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._arrived.set()
        results: Results = await job.answer
        return results

    async def run(self) -> None:
        """Answer the jobs in the queue, until cancelled."""
        try:
            while True:
                await self._arrived.wait()
                await self._answer(self._next_batch())
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _next_batch(self) -> list[_Job]:
        """The first jobs of the queue that are for one function and fit into one call."""
        batch = [self._jobs.popleft()]
        room = BATCH - len(batch[0].images)
        while self._jobs and self._jobs[0].function == batch[0].function and len(self._jobs[0].images) <= room:
            batch.append(self._jobs.popleft())
            room -= len(batch[-1].images)
        if not self._jobs:
            self._arrived.clear()
        return batch

    async def _answer(self, batch: list[_Job]) -> None:
        # Jobs of clients that have disconnected take no time of the model.
        jobs = [job for job in batch if not job.answer.done()]
        if not jobs:
            return
        images = np.concatenate([job.images for job in jobs])
        _CALL_IMAGES.observe(len(images))
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, jobs[0].function, images)
        # The error belongs to these requests; the queue continues.
        except Exception as error:
            for job in jobs:
                if not job.answer.done():
                    job.answer.set_exception(error)
            return
        start = 0
        for job in jobs:
            if not job.answer.done():
                job.answer.set_result(results[start : start + len(job.images)])
            start += len(job.images)

    def _waiting_images(self) -> int:
        return sum(len(job.images) for job in self._jobs)
