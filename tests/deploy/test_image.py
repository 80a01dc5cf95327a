"""deploy/Dockerfile built for real, on a base of Debian's packages, and what it is for: half an hour, 30 GB of disk."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from factories import REPOSITORY
from vit_vs_cnn.core.git import git

ALLOWED = "VIT_VS_CNN_TEST_IMAGE"
MISSING = [program for program in ("buildah", "debootstrap") if shutil.which(program) is None]
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
# In all settings of a mirror that the build gets.
TRACE = "a-trace-of-the-mirror"

# Started and ended inside: what buildah has started is not ended with it.
SERVE_UNTIL_HEALTHY = """
import subprocess, sys, time, urllib.error, urllib.request
command = ["vit-vs-cnn", "serve", "--registry", "digits", "--model", "1", "--port", "18000"]
server, deadline = subprocess.Popen(command, stdout=sys.stderr), time.monotonic() + 300
try:
    while True:
        try:
            print(urllib.request.urlopen("http://127.0.0.1:18000/health", timeout=9).status)
            break
        except (urllib.error.URLError, ConnectionError):
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(1)
finally:
    server.terminate()
    server.wait(60)
"""

# No flow run waits for it, so it ends.
START_A_WORKER = """
export PREFECT_API_URL=http://127.0.0.1:14200/api
prefect server start --port 14200 --no-ui >&2 & server=$!
trap 'kill $server; wait $server || true' EXIT
ask="import urllib.request; urllib.request.urlopen('$PREFECT_API_URL/health', timeout=9)"
until python -c "$ask"; do kill -0 $server; sleep 1; done
prefect worker start --pool remote --type process --run-once
"""

pytestmark = [
    pytest.mark.skipif(not os.environ.get(ALLOWED), reason=f"{ALLOWED} is not set: half an hour, 30 GB of disk"),
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not on this machine"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a build without a container engine needs root"),
]


class Buildah:
    """buildah with a storage of its own, without a daemon, namespaces or a file system that it would need."""

    def __init__(self, folder: Path) -> None:
        self.storage, self._folder = folder / "storage", folder

    def __call__(self, command: str, *arguments: str | Path) -> str:
        own = ["--root", self.storage, "--runroot", self._folder / "run", "--storage-driver", "vfs"]
        with (self._folder / "log").open("ab") as log:
            answer = subprocess.run(
                ["buildah", *own, command, *arguments],
                env=os.environ | {"TMPDIR": str(self._folder)},
                stdout=subprocess.PIPE,
                stderr=log,
                check=False,
            )
        assert answer.returncode == 0, (self._folder / "log").read_text(errors="replace")[-5_000:]
        return answer.stdout.decode(errors="replace").strip()


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[Buildah]:
    buildah = Buildah(tmp_path)
    yield buildah
    buildah("rm", "--all")
    shutil.rmtree(tmp_path)


def make_base(buildah: Buildah, folder: Path) -> str:
    """An image of Debian's own packages, in the place of the one that the registry of images has."""
    mirror = [line.split()[1] for line in SOURCES.read_text().splitlines() if line.startswith("URIs:")][:1]
    debootstrap = ["debootstrap", "--variant=minbase", "bookworm", folder / "base", *mirror]
    subprocess.run(debootstrap, check=True, stdout=subprocess.DEVNULL)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, folder / "base", "/")
    buildah("commit", "--quiet", "--rm", container, "localhost/base")
    return "localhost/base"


def mirror_secrets(folder: Path) -> list[str]:
    """The build's options that let it reach the registries as this machine does."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    settings = {key.rpartition(".")[2]: value.strip("'") for key, _, value in (line.partition("=") for line in listed)}
    index = settings.get("index-url")
    pip = ["[global]", *([f"index-url = {index}"] if index else [])]
    texts = {"sources": SOURCES.read_text(), "uv": f'index-url = "{index}"' if index else ""}
    if certificates := settings.get("cert"):
        pip.append("cert = /run/secrets/certificates")
        texts["certificates"] = Path(certificates).read_text()
    texts["pip"] = "\n".join(pip)
    options = []
    for name, text in texts.items():
        (folder / name).write_text(f"# {TRACE}\n{text}\n")
        options += ["--secret", f"id={name},src={folder / name}"]
    return options


def test_the_image_builds_runs_the_demo_and_has_no_trace_of_a_mirror(buildah: Buildah, tmp_path: Path) -> None:
    base = make_base(buildah, tmp_path)
    revision = git(REPOSITORY, "rev-parse", "HEAD").stdout.strip()
    buildah(
        "build", "--format", "docker", "--isolation", "chroot", "--pull=never", "--tag", "localhost/vit-vs-cnn",
        "--build-arg", f"BASE={base}", "--build-arg", f"REVISION={revision}", *mirror_secrets(tmp_path),
        "--file", REPOSITORY / "deploy/Dockerfile", REPOSITORY,
    )  # fmt: skip
    # Every layer, and what is written about the image; grep finds nothing.
    traces = subprocess.run(["grep", "-rlF", TRACE, buildah.storage], capture_output=True, text=True, check=False)
    assert (traces.returncode, traces.stdout) == (1, "")
    image = json.loads(buildah("inspect", "--type", "image", "localhost/vit-vs-cnn"))["Docker"]["config"]
    assert (image["Entrypoint"], image["User"]) == (["vit-vs-cnn"], "app")
    assert not image.get("Healthcheck")
    assert image["Labels"]["org.opencontainers.image.revision"] == revision

    container = buildah("from", "--pull=never", "localhost/vit-vs-cnn")

    def inside(*command: str) -> str:
        return buildah("run", "--isolation", "chroot", container, "--", *command)

    assert inside("sh", "-c", "id -un; command -v gcc cc make pip uv || true") == "app"
    assert "is a vit-vs-cnn project now" in inside("vit-vs-cnn", "init", "/tmp/mine")
    demo = ("vit-vs-cnn", "run", "--preset", "demo", "--name", "demo")
    assert ": 15 stages ran, 0 were cached" in inside(*demo)
    assert ": 0 stages ran, 15 were cached" in inside(*demo)
    assert "digits-classifier" in inside("vit-vs-cnn", "registry", "list")
    assert inside("python", "-c", SERVE_UNTIL_HEALTHY).splitlines()[-1] == "200"
    assert "started!" in inside("sh", "-euc", START_A_WORKER)
