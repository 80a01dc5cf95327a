"""The process that decodes image files for the server: what they do to a decoder, they do to this process.

A file of 400 kilobytes can keep libjpeg busy for a minute (one of 16 MiB for most of an hour), and no thread can be
stopped: `serving.decoders` starts these processes, and each ends itself when the processor time that its job may take
is spent.
"""

import io
import os
import pickle
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Literal, TypeVar

import psutil
from PIL import Image

from vit_vs_cnn.data.dataset import Decoding
from vit_vs_cnn.data.pixels import decode_image, open_image, reason_of

# More than any phone takes by default.
_MOST_PIXELS_OF_AN_IMAGE = 50_000_000
_SECONDS_TO_COUNT = 0.15

# The kind of an answer and the length of what follows.
HEADER = struct.Struct("<cQ")
Kind = Literal[b"i", b"p", b"e"]
IMAGES: Kind = b"i"  # uint8 (N, S, S, 3)
PIXELS: Kind = b"p"  # nothing was decoded: they have so many pixels
ERROR: Kind = b"e"  # the number of the file that cannot be decoded, a space, and why

Result = TypeVar("Result")


def decode_files(
    files: Sequence[bytes],
    size: int,
    decoding: Decoding,
    most_pixels: int,
    seconds: float,
    seconds_per_megapixel: float,
) -> tuple[Kind, bytes]:
    """Decode the files to squares of `size`, unless their headers say that they have more than `most_pixels` together.

    When that takes more processor time than `seconds` and `seconds_per_megapixel`, SIGPROF ends the process.
    """
    _allow(_SECONDS_TO_COUNT)
    try:
        pixels = sum(_each(files, _count_pixels))
        if pixels > most_pixels:
            return PIXELS, str(pixels).encode()
        _allow(seconds + seconds_per_megapixel * pixels / 1e6)
        return IMAGES, b"".join(_each(files, lambda file: decode_image(file, size, decoding).tobytes()))
    except _FileError as error:
        return ERROR, str(error).encode(errors="replace")
    finally:
        _allow(0)


class _FileError(Exception):
    pass


def _each(files: Sequence[bytes], read: Callable[[bytes], Result]) -> Iterator[Result]:
    for number, file in enumerate(files):
        try:
            yield read(file)
        except MemoryError:
            raise _FileError(f"{number} it takes too much memory") from None
        # On a damaged file Pillow's readers raise almost anything.
        except Exception as error:
            raise _FileError(f"{number} {reason_of(error).rstrip('.')}") from None


def _count_pixels(file: bytes) -> int:
    with open_image(file) as image:
        return image.width * image.height


def _allow(seconds: float) -> None:
    """Let SIGPROF end the process after so many seconds of processor time, for 0 never."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    """Answer jobs, arguments of `decode_files`, from standard input, until it ends.

    Its argument is how many bytes of memory it may take.
    """
    Image.MAX_IMAGE_PIXELS = _MOST_PIXELS_OF_AN_IMAGE
    # What is loaded with the first image takes no time and no memory of a request.
    tiny = io.BytesIO()
    Image.new("RGB", (8, 8)).save(tiny, "JPEG")
    decode_image(tiny.getvalue(), 4)
    memory = psutil.Process().memory_info().vms + int(sys.argv[1])
    with suppress(ValueError, OSError):  # not on macOS
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            kind, content = decode_files(*pickle.load(jobs))
            answers.write(HEADER.pack(kind, len(content)))
            answers.write(content)
            answers.flush()


if __name__ == "__main__":
    main()
