"""The HTTP server of a registered model: its endpoints, its error responses, its process."""

import asyncio
import base64
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
import uvicorn
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vit_vs_cnn.core.errors import NotApplicableError, UserError
from vit_vs_cnn.core.own_pages import LOOPBACK, OwnPagesOnly
from vit_vs_cnn.registry.loading import RegisteredModel
from vit_vs_cnn.serving.batching import Batcher
from vit_vs_cnn.serving.deadlines import Deadlines
from vit_vs_cnn.serving.decoders import Decoders
from vit_vs_cnn.serving.predict import top_classes
from vit_vs_cnn.serving.saliency import caution, render_saliency
from vit_vs_cnn.serving.uploads import BodyReader, ServerLimits, read_uploads
from vit_vs_cnn.serving.watcher import AliasWatcher

_MOST_RENDERINGS = 8
# A saliency map is measured in parts of so many images, between which predictions have their turn, and not for longer
# than a person waits.
_VARIANTS = 9
_SECONDS_TO_MEASURE = 3.0
_SECONDS_TO_SHUT_DOWN = 15
# While a new model is loaded, requests get the interpreter back five times as fast as by default: p99 of the load of
# benchmarks/serving_load.py fell from 160-390 ms to 80-130 ms on two busy cores.
_SWITCH_SECONDS = 0.001
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_REQUESTS = Counter("vit_vs_cnn_requests", "Requests answered.", ["route", "status"])
_REQUEST_SECONDS = Histogram(
    "vit_vs_cnn_request_seconds",
    "Time to answer.",
    ["route"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)


def serve(
    name: str, alias: str, host: str, port: int, limits: ServerLimits, allowed_hosts: Collection[str] = ()
) -> None:
    """Serve the version that `alias` of the registered model `name` points to, until Ctrl-C.

    Requests must name one of `allowed_hosts`; where there are none, loopback on loopback, and any host elsewhere.
    Raises UserError where the address cannot be used or there is no such model.
    """
    listening = _listen(host, port)
    watcher = AliasWatcher(name, alias)
    sys.setswitchinterval(_SWITCH_SECONDS)
    deadlines = Deadlines(limits.seconds)
    app = create_app(watcher, limits, deadlines)
    config = uvicorn.Config(
        OwnPagesOnly(app, allowed_hosts or (LOOPBACK if host in LOOPBACK else None)),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_SECONDS_TO_SHUT_DOWN,
    )
    shown_host = f"[{host}]" if ":" in host else host
    address = f"http://{shown_host}:{listening.getsockname()[1]}"
    print(f"{name} version {watcher.current.version} ({watcher.current.contestant}) on {address}", flush=True)
    try:
        _Server(config, deadlines).run(sockets=[listening])
    except KeyboardInterrupt:
        print("stopped.", flush=True)


class _Server(uvicorn.Server):
    """A server whose requests are all answered before it ends."""

    def __init__(self, config: uvicorn.Config, deadlines: Deadlines) -> None:
        super().__init__(config)
        self._deadlines = deadlines

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more and end when the last request was answered, which is soon."""
        self._deadlines.stop()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"cannot listen on {host}, port {port} ({error.strerror}): choose another --port.") from None
    # Connections inherit it. asyncio sets it only for sockets that it opened itself, and without it the second packet
    # of a response waits 40 ms for the acknowledgement of the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def create_app(watcher: AliasWatcher, limits: ServerLimits, deadlines: Deadlines) -> ASGIApp:
    """The application that serves the current model of `watcher`."""
    endpoints = Endpoints(watcher, limits, deadlines)
    routes = [
        Route("/", endpoints.page),
        Route("/predict", endpoints.predict, methods=["POST"]),
        Route("/explain", endpoints.explain, methods=["POST"]),
        Route("/invocations", endpoints.invocations, methods=["POST"]),
        Route("/health", endpoints.health),
        Route("/version", endpoints.version),
        Route("/metrics", endpoints.metrics),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
        lifespan=endpoints.lifespan,
    )
    # Around Starlette and not in its middleware, which does not see the responses to unexpected errors.
    return _with_metrics_and_headers(app, {route.path for route in routes})


class Endpoints:
    """One method per route."""

    def __init__(self, watcher: AliasWatcher, limits: ServerLimits, deadlines: Deadlines) -> None:
        self._watcher, self._limits, self._deadlines = watcher, limits, deadlines
        self._reader = BodyReader(limits, deadlines)
        self._decoders = Decoders(limits)
        self._batcher = Batcher(limits.queue)
        # Saliency maps share no call: more of them in the queue would keep predictions waiting.
        self._rendering = asyncio.Semaphore(_MOST_RENDERINGS)
        self._html = (files("vit_vs_cnn.serving") / "page.html").read_text(encoding="utf-8")

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Run the batcher and the decoders and watch the alias while the application runs."""
        await self._decoders.start()
        batching = asyncio.create_task(self._batcher.run())
        self._watcher.start()
        try:
            yield
        finally:
            self._watcher.stop()
            batching.cancel()
            await self._decoders.shutdown()

    async def page(self, _: Request) -> Response:
        """Return the page for people."""
        nonce = secrets.token_urlsafe(16)
        policy = {"Content-Security-Policy": _POLICY.format(nonce=nonce)}
        return HTMLResponse(self._html.replace("{{nonce}}", nonce), headers=policy)

    async def predict(self, request: Request) -> Response:
        """Predict the classes of image files."""
        async with self._accepted(request) as (model, body):
            uploads = await read_uploads(request, body, self._limits)
            images = await self._decoders.uploads(uploads, model)
            rows = await self._batcher.call(model.probabilities, images)
        predictions = [
            top_classes(upload.name, row, model.classes).as_json() for upload, row in zip(uploads, rows, strict=True)
        ]
        return JSONResponse({"model": _identity(model), "predictions": predictions})

    async def explain(self, request: Request) -> Response:
        """Predict the classes of one image file, and show the saliency map."""
        async with self._accepted(request) as (model, body), self._rendering:
            uploads = await read_uploads(request, body, self._limits)
            if len(uploads) > 1:
                raise HTTPException(400, "/explain takes one image at a time.")
            image = await self._decoders.uploads(uploads, model)
            row = (await self._batcher.call(model.probabilities, image))[0]
            shown = await self._saliency(model, int(row.argmax()), image)
        prediction = top_classes(uploads[0].name, row, model.classes).as_json()
        return JSONResponse({"model": _identity(model), **prediction, **shown})

    async def _saliency(self, model: RegisteredModel, label: int, image: NDArray[np.uint8]) -> dict[str, Any]:
        """The saliency map of one image, uint8 (1, S, S, 3), with its areas, or why there is none."""
        fields = ("picture", "kind", "deletion_auc", "insertion_auc", "random_auc", "caution", "skipped")
        absent: dict[str, Any] = dict.fromkeys(fields)
        try:
            rendered = (await self._batcher.call(partial(render_saliency, model, label), image))[0]
        except NotApplicableError as reason:
            return absent | {"skipped": str(reason)}
        picture = f"data:image/png;base64,{base64.b64encode(rendered.png).decode()}"
        shown = absent | {"picture": picture, "kind": rendered.kind}
        variants = rendered.variants
        parts = [variants[start : start + _VARIANTS] for start in range(0, len(variants), _VARIANTS)]
        try:
            async with asyncio.timeout(_SECONDS_TO_MEASURE):
                rows = [await self._batcher.call(model.probabilities, part) for part in parts]
        except TimeoutError:
            return shown | {"caution": "Not compared with random orders, which would take this server too long."}
        areas = rendered.perturbed.areas(np.concatenate(rows)[:, label])
        measured = {"deletion_auc": areas.deletion, "insertion_auc": areas.insertion, "random_auc": areas.random}
        return shown | measured | {"caution": caution(areas)}

    async def invocations(self, request: Request) -> Response:
        """Return the probabilities of pixels, in MLflow's protocol."""
        async with self._accepted(request) as (model, body):
            images = await self._decoders.invocation(body, model)
            rows = await self._batcher.call(model.probabilities, images)
        return JSONResponse({"predictions": rows.tolist()})

    async def health(self, _: Request) -> Response:
        """Return whether all is well; with an unreachable registry it is degraded, and predictions work."""
        error = self._watcher.last_error
        state: dict[str, Any] = {"status": "degraded" if error else "ok", "model": _identity(self._watcher.current)}
        return JSONResponse(state | ({"registry": error} if error else {}))

    async def version(self, _: Request) -> Response:
        """Return which model is served, and since when."""
        model = self._watcher.current
        return JSONResponse(
            {
                **_identity(model),
                "alias": None if self._watcher.alias.isdecimal() else self._watcher.alias,
                "contestant": model.contestant,
                "since": self._watcher.since.isoformat(timespec="seconds"),
                "image_size": model.image_size,
                "classes": model.classes,
            }
        )

    async def metrics(self, _: Request) -> Response:
        """Return the metrics for Prometheus."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @asynccontextmanager
    async def _accepted(self, request: Request) -> AsyncIterator[tuple[RegisteredModel, bytes]]:
        """The model that the request keeps to though the alias may move, and its body; then its time runs."""
        model = self._watcher.current
        sentence = f"The request would take longer than {self._limits.seconds:g} seconds: try again later."
        async with self._reader.body(request) as body, self._deadlines.limit(503, sentence):
            yield model, body


def _with_metrics_and_headers(app: ASGIApp, routes: set[str]) -> ASGIApp:
    """Count every response of `app`, and add to it the headers that all responses have."""

    async def observed_app(scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()

        async def observed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
                # Clients choose paths: only known ones may become labels.
                route = scope["path"] if scope["path"] in routes else "other"
                _REQUESTS.labels(route, str(message["status"])).inc()
                _REQUEST_SECONDS.labels(route).observe(time.perf_counter() - started)
            await send(message)

        await app(scope, receive, observed_send if scope["type"] == "http" else send)

    return observed_app


def _identity(model: RegisteredModel) -> dict[str, str | int]:
    return {"name": model.name, "version": model.version}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:100]
    sentence = {404: f"There is nothing at {path}.", 405: f"{path} does not take {request.method}."}
    headers = dict(error.headers or {}) | ({"Retry-After": "1"} if error.status_code == 503 else {})
    return JSONResponse({"error": sentence.get(error.status_code, error.detail)}, error.status_code, headers)


async def _internal_error(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "Internal server error: its log has the traceback."}, 500)
