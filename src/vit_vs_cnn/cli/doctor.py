"""What this machine lacks, if anything, and what that means."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vit_vs_cnn.core.errors import UserError, first_line, without_password
from vit_vs_cnn.core.paths import bytes_in, main_root, mlruns_dir, runs_dir, state_dir
from vit_vs_cnn.orchestration.active_runs import active_runs
from vit_vs_cnn.orchestration.workspace import cache_dir

_CIFAR10_HOST = "https://www.cs.toronto.edu"
_LITTLE_DISK_GB = 5.0
_INSTALL = "run `make setup` in a clone, or install the package again."


@dataclass(frozen=True)
class Check:
    """One finding; where it is not ok, `meaning` says what does not work and what to do."""

    subject: str
    ok: bool
    found: str
    meaning: str = ""
    required: bool = True


def checks() -> list[Check]:
    """All findings, in the order in which one would fix them."""
    python, git = ".".join(map(str, sys.version_info[:3])), shutil.which("git")
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    killed = ", ".join(run.name for run in active_runs(dead=True))
    pending = len(list((state_dir() / "outbox").glob("*/header.json")))
    return [
        Check("Python", sys.version_info >= (3, 11), python, "3.11 or newer is needed; run `make setup` with one."),
        _packages(),
        Check("git", git is not None, git or "not found", "DVC and isolated runs need git: install it."),
        Check("project", True, str(main_root())),
        _device(),
        Check("disk", free_gb > _LITTLE_DISK_GB, f"{free_gb:.0f} GB free", "data, caches and models need a few GB."),
        _space(),
        _dvc(),
        Check(
            "runs",
            not killed,
            f"killed: {killed}" if killed else "none was killed",
            "start one again and it continues, or `vit-vs-cnn doctor --fix` removes their workspaces.",
            required=False,
        ),
        _tracking_store(),
        Check("outbox", not pending, f"{pending} runs pending", "`vit-vs-cnn sync` delivers them.", required=False),
        _host(
            "hub",
            os.environ.get("HF_ENDPOINT", "https://huggingface.co"),
            "pretrained weights need it, or a local file.",
        ),
        _host("CIFAR-10 download", _CIFAR10_HOST, "the official archive needs it once, or a copy in data/raw."),
    ]


def render(results: list[Check]) -> str:
    """The findings as lines: ok, note (works without) or FAIL."""
    lines = []
    for result in results:
        mark = "ok  " if result.ok else "FAIL" if result.required else "note"
        lines.append(f"{mark}  {result.subject}: {result.found}")
        if not result.ok and result.meaning:
            lines.append(f"      {result.meaning}")
    return "\n".join(lines)


def _packages() -> Check:
    if importlib.util.find_spec("pip") is None:
        meaning = "their versions are not checked without pip; `uv pip check` does it in an environment made by uv."
        return Check("packages", False, "there is no pip", meaning, required=False)
    command = [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    found = "; ".join((answer.stdout + answer.stderr).splitlines())
    return Check("packages", answer.returncode == 0, found, _INSTALL)


def _device() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check("device", False, "PyTorch is missing", _INSTALL)
    import torch

    from vit_vs_cnn.training.device import device_name

    threads = device_name(torch.device("cpu"))
    if torch.cuda.is_available():
        return Check("device", True, f"{torch.cuda.get_device_name()}, {threads}")
    meaning = (
        "everything runs on the CPU; take `--preset demo` or `--preset cpu`, the reference experiment wants a GPU."
    )
    return Check("device", False, f"no CUDA device; {threads}", meaning, required=False)


def _space() -> Check:
    """What the project's own data take, the largest first; `clean` keeps them within bounds."""
    try:
        folders = {
            "mlruns": mlruns_dir(),
            "DVC's cache": cache_dir(main_root()),
            "runs": runs_dir(),
            "state": state_dir(),
        }
    except UserError as error:
        return Check("space", False, str(error), required=False)
    sizes = {name: bytes_in(folder) for name, folder in folders.items()}
    largest = sorted(sizes, key=lambda name: -sizes[name])
    return Check("space", True, ", ".join(f"{name} {sizes[name] / 1e6:,.0f} MB" for name in largest))


def _dvc() -> Check:
    command = [sys.executable, "-m", "dvc", "status", "--quiet"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    states = {0: "all stages up to date", 1: "some stages are not up to date; `dvc repro` runs them"}
    found = states.get(answer.returncode) or (answer.stderr.strip().splitlines() or ["failed"])[-1]
    meaning = "dvc.yaml or params.yaml cannot be read; `dvc status` says more."
    return Check("DVC", answer.returncode in states, found, meaning)


def _tracking_store() -> Check:
    from vit_vs_cnn.tracking.store import open_client, store_errors, tracking_uri

    uri = without_password(tracking_uri())
    try:
        experiments = len(open_client().search_experiments())
    except store_errors() as error:
        meaning = "training keeps its records; start the server or fix MLFLOW_TRACKING_URI, then run `vit-vs-cnn sync`."
        return Check("tracking store", False, f"{uri}: {first_line(error)}", meaning)
    return Check("tracking store", True, f"{uri}, {experiments} experiments")


def _host(subject: str, url: str, meaning: str) -> Check:
    address = urlsplit(url)
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname or "", port), timeout=3).close()
    except OSError as error:
        found = f"{url} cannot be reached ({error.strerror or error})"
        return Check(subject, False, found, meaning, required=False)
    return Check(subject, True, url)
