"""Images that are no photographs, small files that decode to gigabytes or for hours; clients that are slow."""

import io
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from harness.counts import asked
from harness.model_server import Server, Store, serving
from harness.small_project import wait_for

# What happens to a connection that the stopping server has not accepted, or not heard anything from.
NOT_ACCEPTED = {"ConnectionRefusedError", "ConnectionResetError", "BrokenPipeError"}

pytest_plugins = ["harness.serving_fixtures"]


@pytest.fixture(scope="module")
def attacked(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has the time of a busy machine."""
    with serving(store, tmp_path_factory.mktemp("attacked"), "--max-seconds", "300") as made:
        yield made


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """49 million black pixels in some 50 kilobytes."""
    file = io.BytesIO()
    Image.new("L", (7000, 7000)).save(file, "PNG", compress_level=9)
    return file.getvalue()


@pytest.fixture(scope="module")
def endless() -> bytes:
    """A progressive JPEG of a million pixels whose last scan is repeated: libjpeg needs most of a minute for it."""
    file = io.BytesIO()
    Image.new("L", (1000, 1000), 100).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    scan = content.rindex(b"\xff\xda")
    return content[:-2] + content[scan:-2] * 100_000 + content[-2:]


def decoders(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


def memory(server: Server) -> int:
    """Bytes of the server and its decoders."""
    used = 0
    for process in (psutil.Process(server.process.pid), *decoders(server)):
        try:
            used += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return used


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}])
def test_other_sites_pages_are_refused(attacked: Server, headers: dict[str, str]) -> None:
    assert attacked.request("GET", "/health", headers=headers).status == 403
    assert attacked.request("POST", "/predict", headers=headers).status == 403


def test_pixels_are_counted_before_they_are_decoded(attacked: Server, bomb: bytes) -> None:
    assert len(bomb) < 100_000
    refused = attacked.send("/predict", bomb, bomb, bomb)
    assert refused.status == 413
    assert refused.json()["error"] == "The images have 147,000,000 pixels, more than the 100,000,000 of a request."
    assert attacked.send("/explain", bomb).status == 200


def test_a_file_that_never_ends_and_one_that_crashes_its_decoder_cost_one_request_each(
    attacked: Server, endless: bytes, images: NDArray[np.uint8], picture: Callable[..., bytes]
) -> None:
    assert len(endless) < 2 * 2**20
    answer = attacked.send("/predict", picture(images[0]), endless)
    assert answer.status == 400
    assert answer.json()["error"] == "The images cannot be read: decoding them takes too long."

    answers, before = [], decoders(attacked)
    request = threading.Thread(target=lambda: answers.append(attacked.send("/predict", endless)))
    request.start()
    # It begins in one process, which ends itself, and goes on in another.
    wait_for(lambda: set(decoders(attacked)) - set(before), 300).pop().send_signal(signal.SIGSEGV)
    request.join()
    assert answers[0].status == 400
    assert answers[0].json()["error"] == "The images cannot be read: their decoder crashed."
    assert attacked.send("/predict", picture(images[0])).status == 200


def test_a_decoder_that_was_killed_while_it_waited_costs_no_request(
    attacked: Server, images: NDArray[np.uint8], picture: Callable[..., bytes]
) -> None:
    assert attacked.send("/predict", picture(images[0])).status == 200
    for idle in decoders(attacked):
        idle.kill()
    wait_for(lambda: not decoders(attacked))
    assert attacked.send("/predict", picture(images[0])).status == 200


@pytest.mark.parametrize(("kind", "requests"), [("bomb", 10), ("endless", 3)])
def test_ordinary_requests_are_answered_under_attack_in_bounded_memory(
    attacked: Server,
    kind: str,
    requests: int,
    request: pytest.FixtureRequest,
    images: NDArray[np.uint8],
    picture: Callable[..., bytes],
) -> None:
    file: bytes = request.getfixturevalue(kind)
    idle, statuses = memory(attacked), list[int]()
    attack = [
        threading.Thread(target=lambda: statuses.append(attacked.send("/predict", file).status))
        for _ in range(requests)
    ]
    for thread in attack:
        thread.start()
    answered, longest, peak = list[int](), 0.0, idle
    while any(thread.is_alive() for thread in attack):
        started = time.monotonic()
        answered.append(attacked.send("/predict", picture(images[0])).status)
        longest = max(longest, time.monotonic() - started)
        peak = max(peak, memory(attacked))
        time.sleep(0.05)
    for thread in attack:
        thread.join()
    seen = f"{len(answered)} ordinary requests, the slowest {longest:.2f} s"
    print(f"{kind}: {idle / 2**20:.0f} MiB idle, {peak / 2**20:.0f} MiB at most; {seen}")
    assert set(statuses) <= ({200, 503} if kind == "bomb" else {400, 503})
    assert sum(status != 503 for status in statuses) >= min(requests, 8)
    assert set(answered) == {200}
    assert peak < 2 * idle


def test_a_server_that_is_stopped_under_attack_answers_and_ends_without_a_traceback(
    store: Store,
    tmp_path: Path,
    bomb: bytes,
    endless: bytes,
    images: NDArray[np.uint8],
    picture: Callable[..., bytes],
) -> None:
    statuses: list[int | str] = []

    def ask(*files: bytes) -> None:
        while True:
            try:
                statuses.append(server.send("/predict", *files).status)
            except (OSError, HTTPException) as refused:
                statuses.append(type(refused).__name__)
                return

    with serving(store, tmp_path) as server:
        attack = [threading.Thread(target=ask, args=files) for files in [(bomb, bomb), (endless,)] * 4]
        attack.append(threading.Thread(target=ask, args=(picture(images[0]),)))
        for thread in attack:
            thread.start()
        wait_for(lambda: len(decoders(server)) > 1 and 200 in statuses, 300)
        children = decoders(server)
        server.process.terminate()
        assert server.process.wait(300) == 0
        for thread in attack:
            thread.join()
    assert set(statuses) - {
        "ConnectionRefusedError",
        "ConnectionResetError",
        "BrokenPipeError",
        "RemoteDisconnected",
    } <= {200, 400, 503}
    assert 503 in statuses
    assert (tmp_path / "server.log").read_text() == ""
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_a_server_that_is_stopped_answers_all_that_it_has_accepted(
    store: Store, tmp_path: Path, images: NDArray[np.uint8], picture: Callable[..., bytes]
) -> None:
    statuses: list[int | str] = []

    def ask() -> None:
        while True:
            try:
                statuses.append(server.send("/predict", picture(images[0])).status)
            except (OSError, HTTPException) as refused:
                statuses.append(type(refused).__name__)
                return

    with serving(store, tmp_path) as server:
        clients = [threading.Thread(target=ask) for _ in range(16)]
        for client in clients:
            client.start()
        wait_for(lambda: statuses.count(200) > 100, 300)
        server.process.terminate()
        assert server.process.wait(300) == 0
        for client in clients:
            client.join()
    # A connection that still waits to be accepted is reset; one that was accepted would be closed without an answer.
    assert set(statuses) <= {200, 503, *NOT_ACCEPTED}


def test_slow_clients_keep_nobody_waiting_and_end_with_the_server(
    store: Store, tmp_path: Path, images: NDArray[np.uint8], picture: Callable[..., bytes]
) -> None:
    """VIT_VS_CNN_CLIENTS=1000 is the whole measure."""
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    with ExitStack() as opened, serving(store, tmp_path, "--max-seconds", "300") as server:
        slow = [
            opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=300))
            for _ in range(asked("VIT_VS_CNN_CLIENTS", 200))
        ]
        for number, client in enumerate(slow):
            client.sendall(head if number % 2 else head[:-6])
        for _ in range(3):
            for client in slow:
                client.sendall(b"1")
            assert server.send("/predict", picture(images[0])).status == 200
        server.process.terminate()
        assert server.process.wait(300) == 0
        answers = {_first_line(client) for client in slow}
    assert answers <= {b"", b"HTTP/1.1 503 Service Unavailable"}
    assert len(answers) == 2
    assert (tmp_path / "server.log").read_text() == ""


def _first_line(client: socket.socket) -> bytes:
    """Of the answer; empty where the connection was closed without one."""
    try:
        return client.recv(1000).partition(b"\r\n")[0]
    except ConnectionResetError:
        return b""
