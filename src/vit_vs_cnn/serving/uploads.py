"""From the body of a request to pixels; nothing in it is trusted."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from vit_vs_cnn.serving.deadlines import Deadlines

_LONGEST_NAME = 200
_MOST_FIELDS = 16
_BODIES_IN_MEMORY = 16


@dataclass(frozen=True)
class ServerLimits:
    """Bytes, images and pixels of a request, its seconds to arrive and again to be answered; images in the queue.

    A few kilobytes of a file can say of themselves that they are fifty million pixels.
    """

    body_bytes: int = 16 * 2**20
    images: int = 64
    pixels: int = 100_000_000
    seconds: float = 30.0
    queue: int = 256


@dataclass(frozen=True)
class Upload:
    """A file as it was sent, and the name that the sender gave it."""

    name: str
    content: bytes


class BodyReader:
    """Reads the bodies of requests; those that are in memory at a time share a budget of bytes."""

    def __init__(self, limits: ServerLimits, deadlines: Deadlines) -> None:
        self._limits, self._deadlines = limits, deadlines
        self._held = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body, which counts until the context ends.

        Raises HTTPException where it is too large (413) or too slow (408), or the budget is spent (503).
        """
        most = self._limits.body_bytes
        share = min(int(request.headers.get("content-length", most)), most)
        if self._held + share > _BODIES_IN_MEMORY * most:
            raise HTTPException(503, "The server is processing too many requests: try again later.")
        self._held += share
        try:
            yield await self._read(request)
        finally:
            self._held -= share

    async def _read(self, request: Request) -> bytes:
        most, body, size = self._limits.body_bytes, bytearray(), 0
        sentence = f"The request did not arrive within {self._limits.seconds:g} seconds."
        try:
            async with self._deadlines.limit(408, sentence):
                async for part in request.stream():
                    size += len(part)
                    if size <= most:
                        body += part
                    # The rest is read for a while and discarded: many clients read no answer before they have sent
                    # everything.
                    elif size > 8 * most:
                        break
        except ClientDisconnect:
            raise HTTPException(499, "The client disconnected.") from None
        if size > most:
            raise HTTPException(413, f"The request is larger than {most / 2**20:g} MiB: send fewer or smaller images.")
        return bytes(body)


async def read_uploads(request: Request, body: bytes, limits: ServerLimits) -> list[Upload]:
    """The files of a multipart body.

    Raises HTTPException where it is not multipart (415), is damaged, or has no or too many files (400).
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(415, "Send images as multipart/form-data, for example: curl -F image=@photo.jpg …/predict")
    parser = MultiPartParser(
        request.headers, _once(body), max_files=limits.images, max_fields=_MOST_FIELDS, max_part_size=limits.body_bytes
    )
    parser.spool_max_size = limits.body_bytes + 1  # keeps files off the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"The multipart body cannot be read: {error.message.rstrip('.')}.") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    uploads = [Upload((file.filename or "")[:_LONGEST_NAME], await file.read()) for file in files]
    await form.close()
    if not uploads:
        raise HTTPException(400, "The request has no file, for example: curl -F image=@photo.jpg …/predict")
    return uploads


def parse_invocation(body: bytes, size: int, most_images: int) -> NDArray[np.uint8]:
    """The images of MLflow's `{"inputs": [...]}` as uint8 (N, size, size, 3).

    Raises HTTPException where there are too many (413) or the body is anything else (400).
    """
    try:
        images = json.loads(body)["inputs"]
        if len(images) > most_images:
            raise HTTPException(413, f"{len(images)} images are more than the {most_images} that a request may have.")
        rows = list(chain.from_iterable(images))
        pixels = list(chain.from_iterable(rows))
        values = list(chain.from_iterable(pixels))
        lengths = [set(map(len, part)) for part in (images, rows, pixels)]
        # true and false would pass as numbers; bytes() refuses what is not from 0 to 255.
        if lengths != [{size}, {size}, {3}] or set(map(type, values)) != {int}:
            raise ValueError
        return np.frombuffer(bytes(values), np.uint8).reshape(-1, size, size, 3)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise HTTPException(
            400,
            'The body must be JSON of the form {"inputs": [image, …]} with '
            f"N×{size}×{size}×3 whole numbers from 0 to 255.",
        ) from None


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
