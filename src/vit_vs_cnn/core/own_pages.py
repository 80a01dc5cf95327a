"""Which pages may use a local server: its own, and no page of another site that the same browser has open."""

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class OwnPagesOnly:
    """An ASGI application that refuses (403) what a page of another site could send to `app`.

    A browser names the page that sends a request in `Origin`: it must be of the same port, and of a host among `hosts`
    or the very host that is asked. `Host` must be among `hosts`, unless that is None: a page whose name was bound anew
    to this address (DNS rebinding) would otherwise count as its own.
    """

    def __init__(self, app: _App, hosts: Collection[str] | None = LOOPBACK) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan" or self._is_own(scope["headers"]):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"error": "This address is for its own pages."}'})

    def _is_own(self, headers: Collection[tuple[bytes, bytes]]) -> bool:
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        asked = _host_and_port(f"http://{hosts[0]}") if len(hosts) == 1 else None
        if asked is None or (self._hosts is not None and asked[0] not in self._hosts):
            return False
        pages = [_host_and_port(origin) for origin in origins]
        names = (asked[0], *(self._hosts or ()))
        return all(page is not None and page[0] in names and page[1] == asked[1] for page in pages)


def _host_and_port(url: str) -> tuple[str, int | None] | None:
    try:
        parts = urlsplit(url)
        return (parts.hostname, parts.port) if parts.hostname else None
    except ValueError:
        return None
