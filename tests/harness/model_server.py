"""Tiny registered models in their own store, and servers of them on loopback."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow import MlflowClient
from numpy.typing import NDArray

from harness.counting import COUNTED
from harness.signals import in_background
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.models.trained import TrainedModel

NAME = "tiny-classifier"
SIZE = 16
# A class is named after a folder, and that can have any name.
CLASSES = ("dark", "grey", "<img src=x onerror=alert(1)>")
INFO = DatasetInfo(
    name="tiny", source="digits", description="", classes=CLASSES, image_size=SIZE, split_seed=0,
    mean=(0.45, 0.45, 0.45), std=(0.3, 0.3, 0.3), splits={}, digest="0",
)  # fmt: skip


@dataclass(frozen=True)
class Store:
    """A registry with version 1 (the ViT, champion) and version 2 (the ResNet), and the networks themselves."""

    uri: str
    database: Path
    networks: Mapping[int, TrainedModel]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def promote(self, version: int) -> None:
        self.client.set_registered_model_alias(NAME, "champion", str(version))

    def expected(self, version: int, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.networks[version].probabilities(torch.from_numpy(images)).numpy()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    port: int

    def request(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        return self.request("GET", path).json()

    def send(self, path: str, *files: bytes) -> Answer:
        body = b"".join(
            b'--B\r\nContent-Disposition: form-data; name="image"; filename="%d.png"\r\n\r\n%s\r\n' % (i, file)
            for i, file in enumerate(files)
        )
        return self.request("POST", path, body + b"--B--\r\n", {"Content-Type": "multipart/form-data; boundary=B"})

    def invoke(self, inputs: Any) -> Answer:
        return self.request("POST", "/invocations", json.dumps({"inputs": inputs}).encode())


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from vit_vs_cnn.cli import program; program()", *arguments]


def environment(store: Store) -> dict[str, str]:
    return {**os.environ, **COUNTED, "MLFLOW_TRACKING_URI": store.uri, "OMP_NUM_THREADS": "1"}


@contextmanager
def serving(store: Store, folder: Path, *arguments: str) -> Iterator[Server]:
    """A server until the end of the context, where SIGTERM ends it in good order."""
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            in_background(command("serve", "--port", "0", *arguments)),
            cwd=folder, env=environment(store), stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line + (folder / "server.log").read_text()
        yield Server(process, int(found[1]))
    finally:
        process.terminate()
        assert process.wait(300) == 0
