"""Malformed and hostile requests. SERVING_FUZZ=5000 tries as many examples of each kind, which takes minutes."""

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.model_server import SIZE, Answer, Server

pytest_plugins = ["harness.serving_fixtures"]

EXAMPLES = int(os.environ.get("SERVING_FUZZ", "60"))
MOST_GROWTH = 64 * 2**20
NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


def is_refused(answer: Answer) -> None:
    assert 400 <= answer.status < 500, (answer.status, answer.body[:300])
    assert set(answer.json()) == {"error"}
    assert 0 < len(answer.json()["error"]) < 500
    assert "Traceback" not in answer.json()["error"]


@pytest.fixture(scope="module", autouse=True)
def _server_lives_and_keeps_its_size(server: Server) -> Iterator[None]:
    process = psutil.Process(server.process.pid)
    warm = server.invoke(np.zeros((64, SIZE, SIZE, 3), np.uint8).tolist())
    assert warm.status == 200
    before = process.memory_info().rss
    yield
    assert server.invoke(np.zeros((1, SIZE, SIZE, 3), np.uint8).tolist()).status == 200
    after = process.memory_info().rss
    print(f"memory of the server: {before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB after")
    assert after - before < MOST_GROWTH


@fuzzed
@given(st.binary(max_size=200) | plain_json.map(lambda value: json.dumps(value).encode()))
def test_a_body_that_is_no_invocation(server: Server, body: bytes) -> None:
    is_refused(server.request("POST", "/invocations", body))


@fuzzed
@given(plain_json)
def test_inputs_that_are_no_images(server: Server, inputs: object) -> None:
    is_refused(server.invoke(inputs))


@fuzzed
@given(st.sampled_from([256, -1, 0.5, 10**30, "0", None, True, [], float("nan")]), st.integers(0, SIZE**2 * 3 - 1))
def test_one_wrong_value_among_right_ones(server: Server, value: object, place: int) -> None:
    image = np.zeros((SIZE, SIZE, 3), np.uint8).tolist()
    image[place // 3 // SIZE][place // 3 % SIZE][place % 3] = value
    is_refused(server.invoke([image]))


@pytest.mark.parametrize(
    "shape", [(1, 3, SIZE, SIZE), (SIZE, SIZE, 3), (1, SIZE, SIZE), (1, SIZE, SIZE, 4), (1, SIZE + 1, SIZE, 3), (0,)]
)
def test_images_of_another_shape(server: Server, shape: tuple[int, ...]) -> None:
    answer = server.invoke(np.zeros(shape, np.uint8).tolist())
    is_refused(answer)
    assert "N×16×16×3" in answer.json()["error"]


@pytest.mark.parametrize("opening", ["[", '{"inputs":', '{"inputs":[', '{"a":'])
def test_json_without_a_bottom(server: Server, opening: str) -> None:
    is_refused(server.request("POST", "/invocations", opening.encode() * 200_000))
    deep = '{"inputs":' + "[" * 900 + "]" * 900 + "}"
    is_refused(server.request("POST", "/invocations", deep.encode()))


@fuzzed
@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]), st.data())
def test_a_damaged_file_is_refused_or_read_all_the_same(server: Server, kind: str, data: st.DataObject) -> None:
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, kind)
    damaged = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    answer = server.send("/predict", bytes(damaged))
    if answer.status != 200:
        is_refused(answer)


@fuzzed
@given(st.sampled_from(["PNG", "JPEG", "BMP"]), st.floats(0, 0.8), st.sampled_from(["/predict", "/explain"]))
def test_a_file_that_was_cut_off(server: Server, kind: str, part: float, path: str) -> None:
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, kind)
    is_refused(server.send(path, file.getvalue()[: int(part * len(file.getvalue()))]))


def png_of(width: int, height: int) -> bytes:
    """A few bytes that claim to be a grey image of this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 10**7, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(8000, 7000), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (0, 5)])
def test_a_decompression_bomb(server: Server, size: tuple[int, int]) -> None:
    is_refused(server.send("/predict", png_of(*size)))


@fuzzed
@given(
    st.one_of(
        st.just("multipart/form-data"),
        st.sampled_from(["multipart/form-data; boundary=B", 'multipart/form-data; boundary=""; charset=nonsense']),
        st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40),
    ),
    st.lists(
        st.sampled_from(
            [b"--B\r\n", b"--B--", b"\r\n", b"\r\n\r\n", b"\0", b"Content-Disposition: form-data", b'; name="image"',
             b'; filename="x.png"', b"; filename*=utf-8''%ff%fe", b'; filename="' + b"../" * 60, b"Content-Type: \xff"]
        )
        | st.binary(max_size=30),
        max_size=12,
    ).map(b"".join),
)  # fmt: skip
def test_absurd_multipart(server: Server, content_type: str, body: bytes) -> None:
    headers = {"Content-Type": content_type.encode("latin-1").decode("latin-1").strip()}
    is_refused(server.request("POST", "/predict", body, headers))


def test_thousands_of_parts(server: Server) -> None:
    part = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    is_refused(server.request("POST", "/predict", part * 20_000 + b"--B--\r\n", headers))
    is_refused(server.request("POST", "/predict", b"--B\r\n" + b"X: y\r\n" * 100_000, headers))
