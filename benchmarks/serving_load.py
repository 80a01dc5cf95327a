"""How does `vit-vs-cnn serve` perform while its alias moves, and what does HTTP cost compared with the bare model?

    python benchmarks/serving_load.py --seconds 60 --clients 16
    python benchmarks/serving_load.py --registry pets --images 8 --json load.json

A separate process sends requests to a server on loopback; each of `--clients` connections sends the next one as soon
as it has the response to the last. Meanwhile the alias `load-test` moves five times between the two newest versions
of the registered model. The bare model is measured before and after the load, while the server is idle: decoding,
HTTP and the load itself take their share of the same cores.
"""

import io
import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

import click
import numpy as np
import psutil
from PIL import Image

from vit_vs_cnn.registry.loading import BATCH, RegisteredModel, load_registered
from vit_vs_cnn.registry.versions import resolve_model_name
from vit_vs_cnn.tracking.store import open_client

ALIAS = "load-test"
MOVES = 5


@dataclass(frozen=True)
class Load:
    """The responses: `seconds` of each request, counts of `statuses`, requests answered by each of the `versions`."""

    seconds: list[float]
    statuses: dict[str, int]
    versions: dict[str, int]


@click.command()
@click.option("--registry", help="The registered model, or its data set; default: the only one there is.")
@click.option("--seconds", default=60.0, help="Duration of the load.")
@click.option("--clients", default=16, help="Concurrent connections.")
@click.option("--images", default=1, help="Image files in a request.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the results to this file too.")
@click.option("--as-load", type=int, hidden=True, help="Send the load to this port.")
@click.option("--side", default=32, hidden=True, help="Side of the images that the load sends.")
def main(
    registry: str | None, seconds: float, clients: int, images: int, file: Path | None, as_load: int | None, side: int
) -> None:
    """Measure requests, failures, latencies and memory of a server under load."""
    if as_load:
        click.echo(json.dumps(asdict(_load(as_load, seconds, clients, images, side))))
        return
    name = resolve_model_name(registry, None)
    client = open_client()
    versions = sorted(int(version.version) for version in client.search_model_versions(f"name = '{name}'"))[-2:]
    bare = load_registered(name, versions[0])
    rates = {count: [_bare_rate(bare, count)] for count in (1, BATCH)}
    client.set_registered_model_alias(name, ALIAS, str(versions[0]))
    program = str(Path(sys.executable).with_name("vit-vs-cnn"))
    server = subprocess.Popen(
        [program, "serve", "--port", "0", "--registry", name, "--model", ALIAS], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        found = re.search(r":(\d+)$", server.stdout.readline().strip())
        if not found:
            sys.exit("the server did not start")
        port = int(found[1])
        _load(port, 3.0, clients, images, bare.image_size)
        process = psutil.Process(server.pid)
        memory_before = process.memory_info().rss
        command = [sys.executable, __file__, "--as-load", str(port), "--seconds", str(seconds)]
        command += ["--clients", str(clients), "--images", str(images), "--side", str(bare.image_size)]
        loading = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for move in range(1, MOVES + 1):
            time.sleep(seconds / (MOVES + 1))
            client.set_registered_model_alias(name, ALIAS, str(versions[move % len(versions)]))
        seen = Load(**json.loads(loading.communicate()[0]))
        memory_after = process.memory_info().rss
    finally:
        server.terminate()
        server.wait()
        client.delete_registered_model_alias(name, ALIAS)
    for count, measured in rates.items():
        measured.append(_bare_rate(bare, count))
    answered = seen.statuses.get("200", 0)
    p50, p95, p99 = (float(1000 * np.percentile(seen.seconds, percent)) for percent in (50, 95, 99))
    results = {
        "requests": sum(seen.statuses.values()),
        "failures": sum(seen.statuses.values()) - answered,
        "statuses": seen.statuses,
        "requests by version": seen.versions,
        "p50 ms": p50,
        "p95 ms": p95,
        "p99 ms": p99,
        "slowest ms": 1000 * max(seen.seconds),
        "images/s": answered * images / seconds,
        "bare model images/s, batch 1": median(rates[1]),
        f"bare model images/s, batch {BATCH}": median(rates[BATCH]),
        "memory before MiB": memory_before / 2**20,
        "memory after MiB": memory_after / 2**20,
    }
    for label, value in results.items():
        click.echo(f"{label:<32} {value:,.1f}" if isinstance(value, float) else f"{label:<32} {value}")
    if file:
        settings = {"model": name, "seconds": seconds, "clients": clients, "images": images}
        file.write_text(json.dumps(settings | results, indent=2) + "\n")


def _load(port: int, seconds: float, clients: int, images: int, side: int) -> Load:
    """Send requests for `seconds` from `clients` threads."""
    body, headers = _body(images, side), {"Content-Type": "multipart/form-data; boundary=B"}
    load = Load([], {}, {})
    end = time.monotonic() + seconds

    def send() -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        while time.monotonic() < end:
            started = time.perf_counter()
            try:
                connection.request("POST", "/predict", body, headers)
                response = connection.getresponse()
                answer, status = json.loads(response.read()), str(response.status)
            except OSError as error:
                connection.close()
                status = type(error).__name__
            load.seconds.append(time.perf_counter() - started)
            load.statuses[status] = load.statuses.get(status, 0) + 1
            if status == "200":
                version = str(answer["model"]["version"])
                load.versions[version] = load.versions.get(version, 0) + 1

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load


def _body(images: int, side: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    body = b""
    for number, image in enumerate(pixels):
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        body += b'--B\r\nContent-Disposition: form-data; name="image"; filename="%d.png"\r\n\r\n' % number
        body += png.getvalue() + b"\r\n"
    return body + b"--B--\r\n"


def _bare_rate(model: RegisteredModel, batch: int, seconds: float = 3.0) -> float:
    """Images per second of the model alone."""
    images = np.zeros((batch, model.image_size, model.image_size, 3), np.uint8)
    model.probabilities(images)
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        model.probabilities(images)
        calls += 1
    return calls * batch / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
