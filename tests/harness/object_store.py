"""An object store on loopback: moto's server with S3's protocol, as a process of its own (s3_server.py)."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.small_project import ask_json
from vit_vs_cnn.orchestration.prefect_server import answers, free_port

BUCKET = "vit-vs-cnn"
KEY = "vit-vs-cnn"


def start_store(port: int, key: str = KEY) -> "subprocess.Popen[bytes]":
    """Start a store without buckets."""
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py")), str(port), key]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


@contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """The environment variables that lead to a store with the bucket BUCKET."""
    import boto3

    port = free_port()
    process = start_store(port)
    variables = credentials(port)
    try:
        while not answers(f"http://127.0.0.1:{port}/moto-api/"):
            assert process.poll() is None, "the store has not started"
        boto3.client("s3", **client_options(variables)).create_bucket(Bucket=BUCKET)
        yield variables
    finally:
        process.kill()
        process.wait()


@contextmanager
def silent_store() -> Iterator[tuple[dict[str, str], Callable[[], int]]]:
    """The variables that lead to a store that takes every connection and says nothing, and how many it has taken."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            with suppress(OSError):  # the end
                while True:
                    taken.append(server.accept()[0])

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield credentials(server.getsockname()[1]), lambda: len(taken)
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()


def credentials(port: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def client_options(variables: Mapping[str, str]) -> dict[str, str]:
    return {
        "endpoint_url": variables["AWS_ENDPOINT_URL"],
        "aws_access_key_id": variables["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": variables["AWS_SECRET_ACCESS_KEY"],
        "region_name": variables["AWS_DEFAULT_REGION"],
    }


def allow(variables: Mapping[str, str], downloads: int) -> None:
    """Let the store answer so many more requests for content; then it refuses."""
    ask_json(f"{variables['AWS_ENDPOINT_URL']}/moto-api/allow?{downloads}")


def break_off(variables: Mapping[str, str], downloads: int) -> None:
    """Have the store end its next answers with content after a hundred bytes."""
    ask_json(f"{variables['AWS_ENDPOINT_URL']}/moto-api/break_off?{downloads}")


def downloads(variables: Mapping[str, str]) -> list[str]:
    """The requests for content that were answered since the last call: key and range of bytes."""
    return list(ask_json(f"{variables['AWS_ENDPOINT_URL']}/moto-api/downloads"))
