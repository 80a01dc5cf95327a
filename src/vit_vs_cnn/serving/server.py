"""The server process: opens the port, loads the model, serves until it is stopped."""

import socket
import sys
import warnings
from collections.abc import Callable

import uvicorn
from PIL import Image

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.serving.app import create_app
from vit_vs_cnn.serving.limits import Limits
from vit_vs_cnn.serving.watcher import AliasWatcher

# More than any phone takes by default; as many as a server can decode for several requests at once.
_MOST_PIXELS = 50_000_000
_SECONDS_TO_END = 5
# While a new model is loaded, requests get the interpreter back five times as fast as by default: p99 of the load of
# benchmarks/serving_load.py fell from 160-390 ms to 80-130 ms on two busy cores.
_SWITCH_SECONDS = 0.001


def serve(name: str, model: str, host: str, port: int, limits: Limits, say: Callable[[str], None]) -> None:
    """Serve version `model` (an alias, or its number) of the registered model `name` until Ctrl-C.

    Raises UserError where the address is taken or there is no such model.
    """
    listening = _listen(host, port)
    follower = AliasWatcher(name, model)
    Image.MAX_IMAGE_PIXELS = _MOST_PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    sys.setswitchinterval(_SWITCH_SECONDS)
    config = uvicorn.Config(
        create_app(follower, limits),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_SECONDS_TO_END,
    )
    shown_host = f"[{host}]" if ":" in host else host
    say(
        f"{name} version {follower.current.version} ({follower.current.contestant}) on "
        f"http://{shown_host}:{listening.getsockname()[1]}"
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        say("stopped.")


def _listen(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"cannot listen on {host}, port {port} ({error.strerror}): choose another --port.") from None
    # Connections inherit it. asyncio sets it for sockets that it opened itself only, and without it the second packet
    # of an answer waits 40 ms for the acknowledgement of the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
