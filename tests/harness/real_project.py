"""The project as it stands, tiny: digits, small networks, one epoch."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from factories import REPOSITORY
from harness.forked_commands import Forks

TINY_OVERRIDES = (
    "train.epochs=1",
    "train.precision=32-true",
    "recipe.batch_size=64",
    "explain.images=2",
    "robustness.images=20",
    "models.vit.args={patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}",
    "models.resnet.args={channels: [8, 8, 16, 16], stem_width: 8}",
)
# The stages that lead to a registered version, where the only contestant is `resnet`.
ONE_CONTESTANT = (
    ("prepare",),
    ("tune", "resnet"),
    ("train", "resnet"),
    ("evaluate", "resnet"),
    ("cost",),
    ("register",),
)
OUTPUTS = ("data/prepared", "tuned", "trained", "evaluated", "robustness", "reports", "registered")
# What is measured with a clock, or has the name of a run in it.
_VARIES = ("run.json", "MLmodel", "model.pt2", "report.html", "versions.json", "figures.json")
_FIGURES_OF_TIMES = ("accuracy_and_cost.svg", "accuracy_and_latency.svg", "learning_by_time.svg")
_TIMES = ("seconds", "per_second", "_ms", "memory", "answer")


def git(folder: Path, *arguments: str) -> str:
    """What git prints, on a machine where it knows its user."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def real_project(folder: Path, forks: Forks, store: Path, overrides: Sequence[str] = ()) -> Path:
    """Make it in `folder`, committed, with the empty tracking store that is in the file `store`."""
    listed = git(REPOSITORY, "ls-files", "-co", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file() and not name.startswith(("docs/", "benchmarks/", "tests/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    git(folder, "init", "--quiet")
    changes = [part for override in (*TINY_OVERRIDES, *overrides) for part in ("--set", override)]
    (folder / "params.yaml").write_text(forks.call(folder, "params", "--preset", "demo", *changes).output)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a small project")
    (folder / "mlruns").mkdir(exist_ok=True)
    shutil.copy(store, folder / "mlruns")
    return folder


def output_digests(folder: Path) -> dict[str, str]:
    """The digest of each output of the stages that the same settings give again, by its path."""
    files = (file for name in OUTPUTS for file in sorted((folder / name).rglob("*")))
    return {
        str(file.relative_to(folder)): hashlib.sha256(_without_times(file)).hexdigest()
        for file in files
        if file.is_file() and file.name not in _VARIES + _FIGURES_OF_TIMES
    }


def _without_times(file: Path) -> bytes:
    if file.suffix == ".json":
        return json.dumps(_pruned(json.loads(file.read_text())), sort_keys=True).encode()
    if file.suffix == ".csv":
        table = pd.read_csv(file)
        return table[[name for name in table.columns if not _is_time(name)]].to_csv().encode()
    return file.read_bytes()


def _pruned(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _pruned(value) for key, value in found.items() if not _is_time(key)}
    return [_pruned(value) for value in found] if isinstance(found, list) else found


def _is_time(name: str) -> bool:
    return any(part in name for part in _TIMES)
