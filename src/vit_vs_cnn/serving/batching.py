"""Dynamic batching: requests that arrive together share one call of the model."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Gauge, Histogram
from starlette.exceptions import HTTPException

from vit_vs_cnn.registry.loading import BATCH, RegisteredModel

_MOST_OTHER_CALLS = 8

_CALL_IMAGES = Histogram("vit_vs_cnn_call_images", "Images in a call of the model.", buckets=(1, 2, 4, 8, 16, 32, 64))
_WAITING_IMAGES = Gauge("vit_vs_cnn_waiting_images", "Images in the queue.")

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class _Job:
    model: RegisteredModel
    images: NDArray[np.uint8]
    answer: asyncio.Future[NDArray[np.float32]]


class Batcher:
    """One thread that calls the models, and a bounded queue in front of it.

    While a call runs, requests queue up; the next call takes all of them, up to `BATCH` images. An idle model is called
    at once: there is no delay in which to wait for more requests.
    """

    def __init__(self, queue_size: int) -> None:
        """`queue_size` bounds the queue, in images."""
        self._queue_size = queue_size
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._other_calls = 0
        _WAITING_IMAGES.set_function(self._waiting_images)

    async def probabilities(self, model: RegisteredModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 (N, K) of uint8 images (N, S, S, 3).

        Raises HTTPException 503 where the queue is full; a request larger than the queue is accepted when it is empty.
        """
        waiting = self._waiting_images()
        if waiting and waiting + len(images) > self._queue_size:
            raise _queue_is_full()
        job = _Job(model, images, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._arrived.set()
        return await job.answer

    async def other_call(self, function: Callable[[], Result]) -> Result:
        """The result of `function`, called in the models' thread.

        Raises HTTPException 503 where too many such calls wait already.
        """
        if self._other_calls >= _MOST_OTHER_CALLS:
            raise _queue_is_full()
        self._other_calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        finally:
            self._other_calls -= 1

    async def run(self) -> None:
        """Answer the jobs in the queue, until cancelled."""
        try:
            while True:
                await self._arrived.wait()
                await self._answer(self._next_batch())
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _next_batch(self) -> list[_Job]:
        """The first jobs of the queue that are for one model and fit into one call."""
        batch = [self._jobs.popleft()]
        images = len(batch[0].images)
        while self._jobs and self._jobs[0].model is batch[0].model and images + len(self._jobs[0].images) <= BATCH:
            batch.append(self._jobs.popleft())
            images += len(batch[-1].images)
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
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, jobs[0].model.probabilities, images)
        # The error belongs to these requests; the queue continues.
        except Exception as error:
            for job in jobs:
                if not job.answer.done():
                    job.answer.set_exception(error)
            return
        ends = np.cumsum([len(job.images) for job in jobs])
        for job, answer in zip(jobs, np.split(rows, ends[:-1]), strict=True):
            if not job.answer.done():
                job.answer.set_result(answer)

    def _waiting_images(self) -> int:
        return sum(len(job.images) for job in self._jobs)


def _queue_is_full() -> HTTPException:
    return HTTPException(503, "The queue is full: try again later.")
