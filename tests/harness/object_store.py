"""A server with S3's protocol on loopback: moto's, as a process of its own that knows one access key.

`python -m harness.object_store PORT ACCESS_KEY` serves until it is ended.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.small_project import ask_json
from vit_vs_cnn.orchestration.prefect_server import answers, free_port

BUCKET = "vit-vs-cnn"
KEY = "vit-vs-cnn"


def start_store(port: int, key: str = KEY) -> "subprocess.Popen[bytes]":
    """Start a store without buckets."""
    command = [sys.executable, "-m", "harness.object_store", str(port), key]
    return subprocess.Popen(command, cwd=Path(__file__).parent.parent, stderr=subprocess.DEVNULL)


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


def downloads(variables: Mapping[str, str]) -> list[str]:
    """The requests for content that were answered since the last call: key and range of bytes."""
    return list(ask_json(f"{variables['AWS_ENDPOINT_URL']}/moto-api/downloads"))


def _serve(port: int, key: str) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    store = DomainDispatcherApplication(create_backend_app)
    answered: list[str] = []
    allowed = [10**9]
    guard = threading.Lock()

    def observed(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """As moto, which asks for no key, but with S3's answers to a wrong one and to too many requests."""
        path, span = environ["PATH_INFO"], environ.get("HTTP_RANGE")
        if path.startswith("/moto-api/"):
            start_response("200 OK", [("Content-Type", "application/json")])
            with guard:
                if path.endswith("allow"):
                    allowed[0] = int(environ["QUERY_STRING"])
                text = json.dumps(answered)
                answered.clear()
            return [text.encode()]
        if f"Credential={key}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            refusal = _error(start_response, "403 Forbidden", "InvalidAccessKeyId", "The key does not exist.")
            return [] if environ["REQUEST_METHOD"] == "HEAD" else refusal
        if span:
            with guard:
                allowed[0] -= 1
                if allowed[0] < 0:
                    return _error(start_response, "503 Slow Down", "SlowDown", "Please reduce your request rate.")
                answered.append(f"{path} {span}")
        return store(environ, start_response)

    run_simple("127.0.0.1", port, observed, threaded=True)


def _error(start_response: Callable[..., Any], status: str, code: str, sentence: str) -> list[bytes]:
    start_response(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>{sentence}</Message></Error>".encode()]


if __name__ == "__main__":
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    _serve(int(sys.argv[1]), sys.argv[2])
