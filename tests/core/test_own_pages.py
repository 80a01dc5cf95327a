"""Which requests a local server answers."""

import asyncio
from typing import Any

import pytest

from vit_vs_cnn.core.own_pages import OwnPagesOnly


def status(hosts: tuple[str, ...] | None, kind: str = "http", **headers: str) -> int:
    """The status with which a request with these headers is answered; a websocket is closed with 1008."""
    sent: list[Any] = []

    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def receive() -> Any:
        return {"type": f"{kind}.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    guarded = OwnPagesOnly(app) if hosts == () else OwnPagesOnly(app, hosts)
    scope = {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    asyncio.run(guarded(scope, receive, send))
    return int(sent[0].get("status") or sent[0]["code"])


@pytest.mark.parametrize("host", ["localhost:4200", "127.0.0.1:4200", "[::1]:4200"])
@pytest.mark.parametrize("page", [None, "http://localhost:4200", "http://127.0.0.1:4200"])
def test_programs_and_its_own_pages_are_answered_on_loopback(host: str, page: str | None) -> None:
    assert status((), host=host, **({"origin": page} if page else {})) == 200


@pytest.mark.parametrize("host", ["evil.example:4200", "localhost.evil.example", "127.0.0.1@evil.example", "[::1", ""])
def test_another_name_is_refused_on_loopback(host: str) -> None:
    assert status((), host=host) == 403
    assert status((), "websocket", host=host) == 1008


@pytest.mark.parametrize(
    "page", ["http://evil.example", "http://localhost:8888", "http://localhost", "null", "", "file://"]
)
def test_pages_of_other_sites_are_refused(page: str) -> None:
    assert status((), host="localhost:4200", origin=page) == 403
    assert status(None, host="localhost:4200", origin=page) == 403
    assert status((), "websocket", host="localhost:4200", origin=page) == 1008


def test_a_request_without_a_host_is_refused() -> None:
    assert status(()) == 403
    assert status(None) == 403


def test_behind_a_proxy_it_is_asked_by_its_name() -> None:
    assert status(("models.example",), host="models.example", origin="https://models.example") == 200
    assert status(("models.example",), host="localhost:8000") == 403
    assert status(None, host="models.example", origin="https://models.example") == 200
