"""From the body of a request to pixels: everything in it is from a stranger."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from vit_vs_cnn.data.decode import decode_image, reason_of
from vit_vs_cnn.serving.limits import Limits, Refused

_LONGEST_NAME = 200
_MOST_FIELDS = 16


@dataclass(frozen=True)
class Upload:
    """A file as it was sent, and the name that the sender gave it."""

    name: str
    content: bytes


class BodyReader:
    """Reads the bodies of requests; those that are in memory at a time share a budget of bytes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body, counted until the context is left.

        Raises Refused where it is too large, comes too slowly, or too many are there.
        """
        share = min(_announced(request) or self._limits.body, self._limits.body)
        if self._held + share > self._limits.bodies:
            raise Refused(503, "Too many requests are here already: come again in a second.")
        self._held += share
        try:
            yield await self._read_in_time(request)
        finally:
            self._held -= share

    async def _read_in_time(self, request: Request) -> bytes:
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._read(request)
        except TimeoutError:
            raise Refused(408, f"The request did not arrive within {self._limits.seconds:g} seconds.") from None

    async def _read(self, request: Request) -> bytes:
        most, body, size = self._limits.body, bytearray(), 0
        async for part in request.stream():
            size += len(part)
            if size <= most:
                body += part
            # What is too much is read on for a while and thrown away: many clients read no answer before they have
            # sent everything.
            elif size > 8 * most:
                break
        if size > most:
            raise Refused(413, f"The request is larger than {most / 2**20:g} MiB: send fewer or smaller images.")
        return bytes(body)


async def uploads_of(request: Request, body: bytes, limits: Limits) -> list[Upload]:
    """The files of a multipart body. Raises Refused where it is none, is damaged, or holds no or too many files."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Refused(415, "Send the images as multipart/form-data, for example: curl -F image=@photo.jpg …/predict")
    parser = MultiPartParser(
        request.headers, _once(body), max_files=limits.images, max_fields=_MOST_FIELDS, max_part_size=limits.body
    )
    parser.spool_max_size = limits.body + 1  # nothing of it goes to the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refused(400, f"The multipart body cannot be read: {error.message.rstrip('.')}.") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    uploads = [Upload((file.filename or "")[:_LONGEST_NAME], await file.read()) for file in files]
    await form.close()
    if not uploads:
        raise Refused(400, "There is no file in the request, for example: curl -F image=@photo.jpg …/predict")
    return uploads


def decoded(uploads: list[Upload], size: int) -> NDArray[np.uint8]:
    """DecodedImages uint8 (N, size, size, 3). Raises Refused with the name of a file that is no readable image."""
    return np.stack([_decoded(upload, size) for upload in uploads])


def pixels_of(body: bytes, size: int, most: int) -> NDArray[np.uint8]:
    """The images of MLflow's `{"inputs": [...]}` as uint8 (N, size, size, 3). Raises Refused for anything else."""
    try:
        inputs: Any = json.loads(body)["inputs"]
    except RecursionError:
        raise Refused(400, "The body is nested too deeply.") from None
    except (ValueError, KeyError, TypeError, IndexError):
        raise Refused(400, 'The body is not JSON of the form {"inputs": [image, …]}.') from None
    shape = f"N×{size}×{size}×3 whole numbers from 0 to 255"
    if not isinstance(inputs, list) or not inputs:
        raise Refused(400, f'"inputs" is no list of images: it takes {shape}.')
    if len(inputs) > most:
        raise Refused(413, f"{len(inputs)} images are more than the {most} that a request may hold.")
    try:
        rows = [row for image in inputs for row in _of_length(image, size)]
        pixels = [pixel for row in rows for pixel in _of_length(row, size)]
        values = list(chain.from_iterable(_of_length(pixel, 3) for pixel in pixels))
        # Truth values pass as numbers elsewhere; bytes() refuses what is not from 0 to 255.
        content = bytes(values) if set(map(type, values)) == {int} else b""
    except ValueError:
        content = b""
    if not content:
        raise Refused(400, f'"inputs" takes {shape}.')
    return np.frombuffer(content, np.uint8).reshape(len(inputs), size, size, 3)


def _of_length(value: Any, length: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != length:
        raise ValueError
    return value


def _decoded(upload: Upload, size: int) -> NDArray[np.uint8]:
    try:
        return decode_image(upload.content, size)
    # On a damaged file Pillow's readers raise almost anything.
    except Exception as error:
        raise Refused(400, f"{upload.name or 'The file'} cannot be read: {reason_of(error).rstrip('.')}.") from None


def _announced(request: Request) -> int | None:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 16 else None


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
