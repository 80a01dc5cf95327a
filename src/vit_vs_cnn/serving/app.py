"""The routes: what a request gets, and in which words it is refused."""

import asyncio
import base64
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.registry.loading import RegisteredModel
from vit_vs_cnn.serving.batching import Batcher
from vit_vs_cnn.serving.limits import Limits, Refused
from vit_vs_cnn.serving.metrics import Metrics
from vit_vs_cnn.serving.predict import Prediction, top_classes
from vit_vs_cnn.serving.saliency import SaliencyRenderer
from vit_vs_cnn.serving.uploads import BodyReader, Upload, decoded, pixels_of, uploads_of
from vit_vs_cnn.serving.watcher import AliasWatcher

_MOST_DECODERS = 4
_NOBODY_LISTENS = 499
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Result = TypeVar("Result")


def create_app(follower: AliasWatcher, limits: Limits) -> Starlette:
    """The application that serves the model that `follower` has at the time."""
    metrics = Metrics(follower)
    doors = _Endpoints(follower, limits, metrics)
    routes = [
        Route("/", doors.page),
        Route("/predict", doors.predict, methods=["POST"]),
        Route("/explain", doors.explain, methods=["POST"]),
        Route("/invocations", doors.invocations, methods=["POST"]),
        Route("/health", doors.health),
        Route("/version", doors.version),
        Route("/metrics", doors.metrics),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Observed, metrics=metrics, routes={route.path for route in routes})],
        exception_handlers={
            Refused: _refused,
            HTTPException: _http_error,
            ClientDisconnect: _disconnected,
            Exception: _own_mistake,
        },
        lifespan=doors.open,
    )


class _Endpoints:
    """One method per route."""

    def __init__(self, follower: AliasWatcher, limits: Limits, metrics: Metrics) -> None:
        self._follower, self._limits, self._metrics = follower, limits, metrics
        self._intake = BodyReader(limits)
        self._decoders = ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_DECODERS), thread_name_prefix="decode")
        self._batcher = Batcher(limits.waiting, metrics.call)
        self._painter = SaliencyRenderer()
        self._html = (files("vit_vs_cnn.serving") / "page.html").read_text(encoding="utf-8")
        metrics.watch_queue(lambda: self._batcher.waiting)

    @asynccontextmanager
    async def open(self, _: Starlette) -> AsyncIterator[None]:
        """The queue is worked on, and the alias followed, while the application runs."""
        worker = asyncio.create_task(self._batcher.run())
        self._follower.start()
        try:
            yield
        finally:
            self._follower.stop()
            worker.cancel()
            self._batcher.close()
            self._decoders.shutdown(wait=False, cancel_futures=True)

    async def page(self, _: Request) -> Response:
        """The page for people."""
        nonce = secrets.token_urlsafe(16)
        policy = {"Content-Security-Policy": _POLICY.format(nonce=nonce)}
        return HTMLResponse(self._html.replace("{{nonce}}", nonce), headers=policy)

    async def predict(self, request: Request) -> Response:
        """Image files to classes."""
        model = self._follower.current
        async with self._intake.body(request) as body:
            uploads = await uploads_of(request, body, self._limits)
            predictions = await self._in_time(self._predictions(model, uploads))
        return JSONResponse({"model": _tag(model), "predictions": [each.as_json() for each in predictions]})

    async def invocations(self, request: Request) -> Response:
        """MLflow's own protocol: pixels to probabilities."""
        model = self._follower.current
        async with self._intake.body(request) as body:
            probabilities = await self._in_time(self._invoked(model, body))
        return JSONResponse({"predictions": probabilities})

    async def explain(self, request: Request) -> Response:
        """One image file to its classes and a picture of what the model looked at."""
        model = self._follower.current
        async with self._intake.body(request) as body:
            uploads = await uploads_of(request, body, self._limits)
            if len(uploads) > 1:
                raise Refused(400, "One image at a time is explained.")
            answer = await self._in_time(self._explained(model, uploads))
        return JSONResponse({"model": _tag(model), **answer})

    async def health(self, _: Request) -> Response:
        """Whether all is well; with a registry that is away it is degraded, and predictions go on."""
        trouble = self._follower.trouble
        state: dict[str, Any] = {"status": "degraded" if trouble else "ok", "model": _tag(self._follower.current)}
        return JSONResponse(state | ({"registry": trouble} if trouble else {}))

    async def version(self, _: Request) -> Response:
        """Which model, and since when."""
        model = self._follower.current
        return JSONResponse(
            {
                **_tag(model),
                "alias": None if self._follower.alias.isdecimal() else self._follower.alias,
                "contestant": model.contestant,
                "since": self._follower.since.isoformat(timespec="seconds"),
                "image_size": model.image_size,
                "classes": model.classes,
            }
        )

    async def metrics(self, _: Request) -> Response:
        """For Prometheus."""
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def _predictions(self, model: RegisteredModel, uploads: list[Upload]) -> list[Prediction]:
        images = await self._decode(partial(decoded, uploads, model.image_size))
        rows = await self._batcher.probabilities(model, images)
        return [top_classes(each.name, row, model.classes) for each, row in zip(uploads, rows, strict=True)]

    async def _invoked(self, model: RegisteredModel, body: bytes) -> list[list[float]]:
        images = await self._decode(partial(pixels_of, body, model.image_size, self._limits.images))
        probabilities: list[list[float]] = (await self._batcher.probabilities(model, images)).tolist()
        return probabilities

    async def _explained(self, model: RegisteredModel, uploads: list[Upload]) -> dict[str, Any]:
        image = (await self._decode(partial(decoded, uploads, model.image_size)))[0]
        row = (await self._batcher.probabilities(model, image[None]))[0]
        said = top_classes(uploads[0].name, row, model.classes).as_json()
        try:
            paint = partial(self._painter.paint, model, image, int(row.argmax()))
            picture = await self._batcher.other_call(paint)
        except NotApplicableError as reason:
            return {**said, "picture": None, "kind": None, "skipped": str(reason)}
        url = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
        return {**said, "picture": url, "kind": picture.kind, "skipped": None}

    async def _decode(self, decode: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, decode)

    async def _in_time(self, work: Awaitable[Result]) -> Result:
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await work
        except TimeoutError:
            raise Refused(503, f"It would take longer than {self._limits.seconds:g} seconds: come again.") from None


class _Observed:
    """Counts every answer, and adds to it the headers that all answers have."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: set[str]) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
                # Strangers choose paths: only known ones may become labels.
                route = scope["path"] if scope["path"] in self._routes else "other"
                self._metrics.request(route, message["status"], time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, observed if scope["type"] == "http" else send)


def _tag(model: RegisteredModel) -> dict[str, str | int]:
    return {"name": model.name, "version": model.version}


def _error(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _error(error.status, str(error), error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:100]
    sentence = {404: f"There is nothing at {path}.", 405: f"{path} does not take {request.method}."}
    return _error(error.status_code, sentence.get(error.status_code, error.detail), dict(error.headers or {}))


async def _disconnected(_: Request, __: Exception) -> Response:
    return Response(status_code=_NOBODY_LISTENS)


async def _own_mistake(_: Request, error: Exception) -> Response:
    logging.getLogger("uvicorn.error").error("a request failed", exc_info=error)
    return _error(500, "The server made a mistake; its log says which.")
