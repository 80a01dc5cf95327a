"""The decoding of requests: by processes that can be killed, ordinary requests never behind those that take seconds."""

import asyncio
import os
import pickle
import signal
import sys
from asyncio.subprocess import PIPE, Process
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from vit_vs_cnn.registry.loading import RegisteredModel
from vit_vs_cnn.serving.decoder import ERROR, HEADER, PIXELS, Kind
from vit_vs_cnn.serving.uploads import ServerLimits, Upload, parse_invocation

_MOST_DECODERS = 4
_MOST_LARGE = 8
_MEMORY = 2**30
_BUFFER_BYTES = 2**20


@dataclass(frozen=True)
class _Allowance:
    """What the images of a request may have and take: pixels, and seconds of processor time."""

    pixels: int
    seconds: float
    seconds_per_megapixel: float


# A photograph of a phone, or many small images: several times what JPEG, PNG, WebP and AVIF need.
_ORDINARY = _Allowance(16_000_000, 0.15, 0.05)
# Twice what JPEG 2000 needs, the slowest format.
_LARGE_SECONDS, _LARGE_SECONDS_PER_MEGAPIXEL = 1.0, 0.5


class _TooSlowError(Exception):
    """A decoder ended itself: the processor time of its job was spent."""


class Decoders:
    """Decodes the bodies of requests; large images take one core, and the memory of one request, at a time."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        memory = _MEMORY + 4 * limits.body_bytes
        self._ordinary = _Lane(min(os.cpu_count() or 1, _MOST_DECODERS), memory)
        self._large = _Lane(1, memory)
        self._large_allowance = _Allowance(limits.pixels, _LARGE_SECONDS, _LARGE_SECONDS_PER_MEGAPIXEL)
        self._large_requests = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parse")

    async def start(self) -> None:
        """Start the first process, so that the first request need not wait for it."""
        await self._ordinary.warm_up()

    async def uploads(self, uploads: list[Upload], model: RegisteredModel) -> NDArray[np.uint8]:
        """The images as uint8 (N, S, S, 3).

        Raises HTTPException for a file that cannot be decoded or takes too long (400), for too many pixels (413), and
        where too many large requests wait (503).
        """
        kind, content = PIXELS, b"0"
        # A few formats are slow: they are decoded again, behind the large ones.
        with suppress(_TooSlowError):
            kind, content = await self._ordinary.decode(uploads, model, _ORDINARY)
        if kind == PIXELS and int(content) <= self._limits.pixels:
            kind, content = await self._decode_large(uploads, model)
        if kind == PIXELS:
            raise HTTPException(
                413, f"The images have {int(content):,} pixels, more than the {self._limits.pixels:,} of a request."
            )
        if kind == ERROR:
            number, _, reason = content.decode().partition(" ")
            raise HTTPException(400, f"{uploads[int(number)].name or 'The file'} cannot be read: {reason}.")
        return np.frombuffer(content, np.uint8).reshape(len(uploads), model.image_size, model.image_size, 3)

    async def _decode_large(self, uploads: list[Upload], model: RegisteredModel) -> tuple[Kind, bytes]:
        if self._large_requests >= _MOST_LARGE:
            raise HTTPException(503, "The server is decoding too many large images: try again later.")
        self._large_requests += 1
        try:
            return await self._large.decode(uploads, model, self._large_allowance)
        except _TooSlowError:
            raise HTTPException(400, "The images cannot be read: decoding them takes too long.") from None
        finally:
            self._large_requests -= 1

    async def invocation(self, body: bytes, model: RegisteredModel) -> NDArray[np.uint8]:
        """The images of MLflow's protocol as uint8 (N, S, S, 3). Raises HTTPException where it is not followed."""
        parse = partial(parse_invocation, body, model.image_size, self._limits.images)
        return await asyncio.get_running_loop().run_in_executor(self._thread, parse)

    async def shutdown(self) -> None:
        """Decode nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        for lane in (self._ordinary, self._large):
            await lane.shutdown()


class _Lane:
    """Up to so many processes that decode, each one request at a time, started when they are needed."""

    def __init__(self, processes: int, memory: int) -> None:
        self._command = (sys.executable, "-m", "vit_vs_cnn.serving.decoder", str(memory))
        self._free = asyncio.Semaphore(processes)
        self._living: set[Process] = set()
        self._idle: list[Process] = []

    async def warm_up(self) -> None:
        """Start the first process."""
        self._idle.append(await self._start())

    async def decode(self, uploads: list[Upload], model: RegisteredModel, allowance: _Allowance) -> tuple[Kind, bytes]:
        """The answer of a process. Raises _TooSlowError, and HTTPException 400 for a file that made it crash."""
        files = [upload.content for upload in uploads]
        job = (files, model.image_size, model.decoding, *astuple(allowance))
        async with self._free:
            process = self._take_idle() or await self._start()
            try:
                answer = await _ask(process, pickle.dumps(job))
            # It crashed, or the request was too slow in another way: nobody waits for what it decodes now.
            except BaseException:
                await self._end(process)
                raise
            self._idle.append(process)
            return answer

    async def shutdown(self) -> None:
        """End all processes."""
        for process in list(self._living):
            await self._end(process)

    def _take_idle(self) -> Process | None:
        while self._idle:
            process = self._idle.pop()
            # The loop knows of an output that was closed sooner than of an end.
            if process.returncode is None and process.stdout is not None and not process.stdout.at_eof():
                return process
            self._living.discard(process)  # somebody, or a machine out of memory, has killed it
        return None

    async def _start(self) -> Process:
        # In a group of its own: Ctrl-C is for the server.
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            process_group=0,
            limit=_BUFFER_BYTES,
            # Or glibc would keep the memory of large images.
            env=os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)},
        )
        self._living.add(process)
        return process

    async def _end(self, process: Process) -> None:
        self._living.discard(process)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _ask(process: Process, job: bytes) -> tuple[Kind, bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(job)
        kind, length = HEADER.unpack(await process.stdout.readexactly(HEADER.size))
        return kind, await process.stdout.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        if await process.wait() == -signal.SIGPROF:
            raise _TooSlowError from None
        raise HTTPException(400, "The images cannot be read: their decoder crashed.") from None
