"""What the server tells Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from vit_vs_cnn.serving.watcher import AliasWatcher

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts requests and calls of the model; `text` is the page that Prometheus reads."""

    def __init__(self, follower: AliasWatcher) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._follower = follower
        self._requests = Counter(
            "vit_vs_cnn_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "vit_vs_cnn_request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, registry=self._registry
        )
        self._calls = Histogram(
            "vit_vs_cnn_call_images", "Images in a call of the model.", buckets=_IMAGES, registry=self._registry
        )
        self._waiting = Gauge("vit_vs_cnn_waiting_images", "Images in the queue.", registry=self._registry)
        self._model = Gauge(
            "vit_vs_cnn_model_info", "The model served.", ["name", "version", "contestant"], registry=self._registry
        )
        self._since = Gauge("vit_vs_cnn_model_since_seconds", "When it was taken up.", registry=self._registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def call(self, images: int) -> None:
        """The model was called with so many images."""
        self._calls.observe(images)

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Ask `waiting` for the number of images in the queue."""
        self._waiting.set_function(waiting)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        model = self._follower.current
        self._since.set(self._follower.since.timestamp())
        self._model.clear()
        self._model.labels(model.name, str(model.version), model.contestant).set(1)
        return generate_latest(self._registry)
