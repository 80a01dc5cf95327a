"""Requests that arrive together share one call of the model."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.registry.loading import BATCH, RegisteredModel
from vit_vs_cnn.serving.limits import Refused

_MOST_OTHER_CALLS = 8
_BUSY = "The queue is full: come again in a second."

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class _Job:
    model: RegisteredModel
    images: NDArray[np.uint8]
    answer: asyncio.Future[NDArray[np.float32]]


class Batcher:
    """One thread that calls the models, and a bounded queue in front of it.

    While a call runs, requests gather; the next call takes all of them, up to `BATCH` images. An idle model answers at
    once: there is no delay in which to wait for company.
    """

    def __init__(self, most_waiting: int, called: Callable[[int], None]) -> None:
        """`most_waiting` bounds the queue, in images; `called` is told how many each call of the model has."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._queue: asyncio.Queue[_Job] = asyncio.Queue()
        self._most_waiting = most_waiting
        self._called = called
        self._others = 0
        self.waiting = 0

    async def probabilities(self, model: RegisteredModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 (N, K) of `model` for uint8 (N, S, S, 3). Raises Refused where the queue is full."""
        # Alone, a request larger than the queue is served all the same.
        if self.waiting and self.waiting + len(images) > self._most_waiting:
            raise Refused(503, _BUSY)
        job = _Job(model, images, asyncio.get_running_loop().create_future())
        self.waiting += len(images)
        self._queue.put_nowait(job)
        return await job.answer

    async def other_call(self, function: Callable[[], Result]) -> Result:
        """What `function` gives, called in the models' thread. Raises Refused where too many wait already."""
        if self._others >= _MOST_OTHER_CALLS:
            raise Refused(503, _BUSY)
        self._others += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        finally:
            self._others -= 1

    async def run(self) -> None:
        """Answer what is in the queue, until cancelled."""
        first = await self._queue.get()
        while True:
            jobs, following = [first], None
            images = len(first.images)
            while following is None and not self._queue.empty():
                job = self._queue.get_nowait()
                if job.model is first.model and images + len(job.images) <= BATCH:
                    jobs.append(job)
                    images += len(job.images)
                else:
                    following = job
            self.waiting -= images
            await self._answer(jobs)
            first = following or await self._queue.get()

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, jobs: list[_Job]) -> None:
        # Whoever went away in the meantime costs no time of the model.
        jobs = [job for job in jobs if not job.answer.done()]
        if not jobs:
            return
        images = np.concatenate([job.images for job in jobs])
        self._called(len(images))
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, jobs[0].model.probabilities, images)
        # It is theirs who asked; the queue goes on.
        except Exception as error:
            for job in jobs:
                if not job.answer.done():
                    job.answer.set_exception(error)
            return
        start = 0
        for job in jobs:
            if not job.answer.done():
                job.answer.set_result(rows[start : start + len(job.images)])
            start += len(job.images)
