import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from starlette.testclient import TestClient

from harness.counts import asked
from harness.model_server import CLASSES, INFO, NAME, SIZE, Answer, Server, Store, serving
from harness.small_project import wait_for
from vit_vs_cnn.cli import main
from vit_vs_cnn.explain.attention import explain_attention
from vit_vs_cnn.models.trained import TrainedModel
from vit_vs_cnn.registry.loading import load_exported
from vit_vs_cnn.serving import app as server_app
from vit_vs_cnn.serving.app import create_app
from vit_vs_cnn.serving.deadlines import Deadlines
from vit_vs_cnn.serving.uploads import ServerLimits
from vit_vs_cnn.serving.watcher import AliasWatcher

pytest_plugins = ["harness.serving_fixtures"]


def test_pixels_get_the_networks_probabilities(server: Server, store: Store, images: NDArray[np.uint8]) -> None:
    for batch in (images, images[:1]):
        answer = server.invoke(batch.tolist())
        assert answer.status == 200
        np.testing.assert_allclose(answer.json()["predictions"], store.expected(1, batch), atol=1e-5)


def test_files_get_classes(
    server: Server, store: Store, images: NDArray[np.uint8], picture: Callable[..., bytes]
) -> None:
    answer = server.send("/predict", *(picture(pixels) for pixels in images)).json()
    assert answer["model"] == {"name": NAME, "version": 1}
    for i, (said, expected) in enumerate(zip(answer["predictions"], store.expected(1, images), strict=True)):
        assert said["file"] == f"{i}.png"
        assert said["class"] == CLASSES[expected.argmax()]
        assert said["probability"] == pytest.approx(expected.max(), abs=1e-5)


def test_it_says_which_model_since_when_and_how_it_is(server: Server) -> None:
    version = server.get("/version")
    assert (version["version"], version["alias"], version["contestant"]) == (1, "champion", "vit")
    assert version["since"].endswith("+00:00")
    assert server.get("/health") == {"status": "ok", "model": {"name": NAME, "version": 1}}
    metrics = server.request("GET", "/metrics").body.decode()
    assert f'vit_vs_cnn_model_info{{contestant="vit",name="{NAME}",version="1"}} 1.0' in metrics
    assert 'vit_vs_cnn_requests_total{route="/version",status="200"}' in metrics


def test_nothing_is_served_but_its_routes(server: Server) -> None:
    for path in ("/../pyproject.toml", "//etc/passwd", "/page.html", "/docs", "/openapi.json", "/%2e%2e/x"):
        assert server.request("GET", path).status == 404
    assert server.request("GET", "/predict").status == 405
    assert b"/page.html" not in server.request("GET", "/metrics").body


def test_a_large_request_is_refused(server: Server, images: NDArray[np.uint8], picture: Callable[..., bytes]) -> None:
    assert server.invoke([images[0].tolist()] * 65).status == 413
    assert "Too many files" in server.send("/predict", *[picture(images[0])] * 65).json()["error"]
    too_large = server.send("/predict", b"x" * (17 * 2**20))
    assert too_large.status == 413
    assert too_large.json()["error"] == "The request is larger than 16 MiB: send fewer or smaller images."


def test_when_the_alias_moves_no_request_fails_and_each_gets_one_model(
    server: Server,
    store: Store,
    images: NDArray[np.uint8],
    picture: Callable[..., bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """VIT_VS_CNN_REQUESTS=100000 is the whole measure: the alias moves 50 times."""
    requests = asked("VIT_VS_CNN_REQUESTS", 500)
    moves, answered = min(50, max(5, requests // 2000)), 0
    file, done, counting = picture(images[3]), threading.Event(), threading.Lock()
    expected = {version: store.expected(version, images[3:4]).max() for version in (1, 2)}
    seen: set[int] = set()
    wrong: list[object] = []

    def ask() -> None:
        nonlocal answered
        while not done.is_set():
            try:
                answer = server.send("/predict", file)
            except (OSError, HTTPException) as lost:
                wrong.append(lost)
                continue
            version = answer.json()["model"]["version"] if answer.status == 200 else 0
            seen.add(version)
            with counting:
                answered += 1
            if not version or abs(answer.json()["predictions"][0]["probability"] - expected[version]) > 1e-5:
                wrong.append(answer)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for move in range(1, moves + 1):
        store.promote(1 + move % 2)
        wait_for(lambda version=1 + move % 2: server.get("/version")["version"] == version)
        wait_for(lambda share=requests * move // moves: answered >= share)
    done.set()
    for thread in asking:
        thread.join()
    store.promote(1)
    wait_for(lambda: server.get("/version")["version"] == 1)
    assert wrong == []
    assert seen == {1, 2}
    with capsys.disabled():
        print(f"\n{answered} requests, {moves} moves of the alias, {len(wrong)} failed")


def test_an_unreachable_or_unusable_registry_changes_nothing_but_health(
    server: Server, store: Store, images: NDArray[np.uint8]
) -> None:
    def health_becomes(status: str) -> str:
        deadline = time.monotonic() + 300
        while (health := server.get("/health"))["status"] != status:
            assert time.monotonic() < deadline, health
            time.sleep(0.1)
        return str(health.get("registry"))

    content = store.database.read_bytes()
    store.database.write_bytes(b"not a database" * 1000)
    assert "is not an SQLite database" in health_becomes("degraded")
    assert server.invoke(images.tolist()).status == 200
    store.database.write_bytes(content)
    health_becomes("ok")

    store.client.delete_registered_model_alias(NAME, "champion")
    assert "has no version or alias 'champion'" in health_becomes("degraded")
    store.promote(1)
    health_becomes("ok")

    foreign = store.client.create_model_version(NAME, source=str(store.database.parent))
    store.promote(int(foreign.version))
    assert f"{NAME} version {foreign.version} cannot be used" in health_becomes("degraded")
    assert server.invoke(images.tolist()).status == 200
    store.promote(1)
    health_becomes("ok")


@pytest.fixture(scope="module")
def narrow(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the ResNet with little room, which stops at Ctrl-C without an error."""
    folder = tmp_path_factory.mktemp("narrow")
    with serving(
        store, folder, "--model", "2", "--max-images", "2", "--max-waiting", "1", "--max-seconds", "300"
    ) as made:
        yield made
        made.process.send_signal(signal.SIGINT)
        assert made.process.wait(300) == 0
    assert (folder / "server.log").read_text() == ""


def deletion_areas(model: TrainedModel, pixels: NDArray[np.uint8], label: int) -> list[float]:
    """Areas under the probability while the four patches of an image are deleted by falling and by rising rollout."""
    image = torch.from_numpy(pixels[None])
    rollout = explain_attention(model.network, model.preprocess(image)).rollout[0]
    assert rollout.shape == (2, 2)
    areas, side = [], SIZE // 2
    for order in (np.argsort(-rollout.ravel()), np.argsort(rollout.ravel())):
        remaining = image.clone()
        curve = [float(model.probabilities(remaining)[0, label])]
        for row, column in (divmod(int(cell), 2) for cell in order):
            remaining[:, side * row : side * (row + 1), side * column : side * (column + 1)] = round(255 * INFO.mean[0])
            curve.append(float(model.probabilities(remaining)[0, label]))
        areas.append((sum(curve) - (curve[0] + curve[-1]) / 2) / 4)
    return areas


def test_a_picture_says_what_it_shows(
    server: Server, narrow: Server, images: NDArray[np.uint8], picture: Callable[..., bytes]
) -> None:
    answer = server.send("/explain", picture(images[0])).json()
    assert answer["kind"] == "attention rollout"
    assert answer["picture"].startswith("data:image/png;base64,")
    assert narrow.send("/explain", picture(images[0])).json()["kind"] == "Grad-CAM"
    assert server.send("/explain", *[picture(images[0])] * 2).status == 400


def test_a_picture_is_measured_against_random_orders(
    server: Server, store: Store, images: NDArray[np.uint8], picture: Callable[..., bytes]
) -> None:
    cautions = set()
    for pixels in images:
        answer = server.send("/explain", picture(pixels)).json()
        deletion, insertion, by_chance = (answer[f"{name}_auc"] for name in ("deletion", "insertion", "random"))
        expected = deletion_areas(store.networks[1], pixels, CLASSES.index(answer["class"]))
        assert [deletion, insertion] == pytest.approx(expected, abs=1e-4)
        assert 0 < by_chance < 1
        assert (answer["caution"] is None) == (deletion < by_chance < insertion)
        if answer["caution"] is not None:
            assert f"(deletion AUC {deletion:.2f}, insertion AUC {insertion:.2f}, random orders" in answer["caution"]
        cautions.add(answer["caution"] is None)
    assert cautions == {True, False}


def test_a_version_that_was_named_stays(narrow: Server) -> None:
    version = narrow.get("/version")
    assert (version["version"], version["alias"]) == (2, None)


def test_a_full_queue_asks_to_try_again_later(narrow: Server, images: NDArray[np.uint8]) -> None:
    refused: list[Answer] = []
    statuses: set[int] = set()

    def ask() -> None:
        for _ in range(200):
            answer = narrow.invoke(images[:2].tolist())
            statuses.add(answer.status)
            if refused:
                return
            if answer.status == 503:
                refused.append(answer)

    asking = [threading.Thread(target=ask) for _ in range(16)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert statuses <= {200, 503}
    assert "try again later" in refused[0].json()["error"]
    assert refused[0].headers["retry-after"] == "1"


def test_a_request_that_does_not_arrive_times_out(store: Store, tmp_path: Path) -> None:
    with (
        serving(store, tmp_path, "--max-seconds", "2") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=300) as connection,
    ):
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        assert b"408" in connection.recv(1000).splitlines()[0]


def test_an_unexpected_error_is_a_json_response_that_is_counted() -> None:
    app = create_app(cast(AliasWatcher, object()), ServerLimits(), Deadlines(30))
    client = TestClient(app, raise_server_exceptions=False)
    response = client.get("/health")
    assert response.status_code == 500
    assert set(response.json()) == {"error"}
    assert response.headers["x-content-type-options"] == "nosniff"
    assert 'vit_vs_cnn_requests_total{route="/health",status="500"} 1.0' in client.get("/metrics").text


def test_a_picture_that_takes_too_long_to_measure_is_shown_without_its_areas(
    exported: tuple[Path, dict[int, TrainedModel]],
    images: NDArray[np.uint8],
    picture: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_app, "_SECONDS_TO_MEASURE", 0.0)
    model = load_exported(exported[0] / "1", NAME, 1)
    watcher = SimpleNamespace(current=model, start=lambda: None, stop=lambda: None)
    with TestClient(create_app(cast(AliasWatcher, watcher), ServerLimits(), Deadlines(30))) as client:
        answer = client.post("/explain", files={"image": ("photo.png", picture(images[0]))}).json()
        predicted = client.post("/predict", files={"image": ("photo.png", picture(images[0]))}).json()
    assert answer["picture"].startswith("data:image/png;base64,")
    assert answer["caution"].startswith("Not compared with random orders")
    assert answer["deletion_auc"] is answer["insertion_auc"] is answer["random_auc"] is None
    assert predicted["predictions"][0]["class"] == answer["class"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--model", "nobody"), f"{NAME} has no version or alias 'nobody'; there are: 1"),
        (("--host", "192.0.2.1"), "cannot listen on 192.0.2.1, port 0"),
    ],
)
def test_what_prevents_the_start_is_one_sentence(
    store: Store,
    arguments: tuple[str, ...],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setattr("sys.argv", ["vit-vs-cnn", "serve", "--port", "0", *arguments])
    with pytest.raises(SystemExit, match="2"):
        main()
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1
