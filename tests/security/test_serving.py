"""Image bombs: a few kilobytes that decode to hundreds of megabytes."""

import io
import threading
from collections.abc import Callable

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from harness.model_server import Server

pytest_plugins = ["harness.serving_fixtures"]


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """49 million black pixels in some 50 kilobytes."""
    file = io.BytesIO()
    Image.new("L", (7000, 7000)).save(file, "PNG", compress_level=9)
    return file.getvalue()


def test_pixels_are_counted_before_they_are_decoded(server: Server, bomb: bytes) -> None:
    assert len(bomb) < 100_000
    refused = server.send("/predict", bomb, bomb, bomb)
    assert refused.status == 413
    assert refused.json()["error"] == "The images have 147,000,000 pixels, more than the 100,000,000 of a request."
    assert server.send("/explain", bomb).status == 200


def test_ordinary_requests_are_answered_while_bombs_are_decoded_in_bounded_memory(
    server: Server, bomb: bytes, images: NDArray[np.uint8], picture: Callable[..., bytes]
) -> None:
    process, statuses = psutil.Process(server.process.pid), list[int]()
    idle = process.memory_info().rss
    attack = [
        threading.Thread(target=lambda: statuses.append(server.send("/predict", bomb, bomb).status)) for _ in range(12)
    ]
    for thread in attack:
        thread.start()
    answered, peak = 0, idle
    while any(thread.is_alive() for thread in attack):
        answered += server.send("/predict", picture(images[0])).status == 200
        peak = max(peak, process.memory_info().rss)
    for thread in attack:
        thread.join()
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 8
    assert answered > len(statuses)
    assert peak < idle + 800 * 2**20
