"""A server with S3's protocol that knows one access key: `python s3_server.py PORT ACCESS_KEY`, until it is ended."""

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


def serve(port: int, key: str) -> None:
    store = DomainDispatcherApplication(create_backend_app)
    answered: list[str] = []
    allowed, breaks = [10**9], [0]
    guard = threading.Lock()

    def observed(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """As moto, which asks for no key, but with S3's answers to a wrong one and to too many requests."""
        path, span = environ["PATH_INFO"], environ.get("HTTP_RANGE")
        if path.startswith("/moto-api/"):
            start_response("200 OK", [("Content-Type", "application/json")])
            with guard:
                if path.endswith("allow"):
                    allowed[0] = int(environ["QUERY_STRING"])
                if path.endswith("break_off"):
                    breaks[0] = int(environ["QUERY_STRING"])
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
                breaks[0] -= 1
                is_broken = breaks[0] >= 0
            if is_broken:
                return [b"".join(store(environ, start_response))[:100]]
        return store(environ, start_response)

    run_simple("127.0.0.1", port, observed, threaded=True)


def _error(start_response: Callable[..., Any], status: str, code: str, sentence: str) -> list[bytes]:
    start_response(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>{sentence}</Message></Error>".encode()]


if __name__ == "__main__":
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    serve(int(sys.argv[1]), sys.argv[2])
