"""The state of a training that can be killed at any moment and resumes after its last finished epoch."""

import hashlib
import json
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric

from vit_vs_cnn.core.errors import TransientError, UserError, first_line
from vit_vs_cnn.core.paths import remove, state_dir
from vit_vs_cnn.core.records import digest_of, write_atomically
from vit_vs_cnn.training.results import Epoch
from vit_vs_cnn.training.setup import TrainingJob

# Code that decides the outcome of a training.
_CODE = ("config/*.py", "data/augment/*.py", "data/loader.py", "models/*.py", "training/*.py")
_RUN_KEY = re.compile(r"[0-9a-f]{32}")


def code_digest(*more: str) -> str:
    """A digest of the code that decides the outcome of a training, and of the files that `more` patterns match.

    Raises FileNotFoundError where a pattern matches no file: moved code must not leave the digest unnoticed.
    """
    digest = hashlib.blake2b(digest_size=12)
    package = Path(__file__).parents[1]
    for pattern in (*_CODE, *more):
        paths = sorted(package.glob(pattern))
        if not paths:
            raise FileNotFoundError(f"{pattern}: matches no file of {package}.")
        for path in paths:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def fingerprint(job: TrainingJob) -> str:
    """A digest of all that a training depends on: settings, data, code, version of PyTorch, device and precision."""
    budget, plan, splits = job.settings.train, job.plan, job.info.splits
    facts = {
        "seed": job.settings.seed,
        "select_by": job.settings.select_by,
        "budget": [budget.epochs, budget.patience, budget.refit],
        "model": job.model.model_dump(),
        "weights": None if job.model.weights is None else digest_of(Path(job.model.weights).read_bytes()),
        "data": [splits["train"].digest, splits["val"].digest, job.info.decoding.in_chans],
        "plan": [plan.device.type, plan.processes, plan.precision, plan.compiled, plan.deterministic],
        "checkpoint_gradients": budget.checkpoint_gradients,
        "torch": torch.__version__,
        "code": code_digest(),
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after its last finished epoch, in a folder that this training alone writes to."""

    folder: Path

    def save(self, state: dict[str, Any], history: Sequence[Epoch]) -> None:
        """Replace the checkpoint in one atomic step, and keep the one before it."""
        draft, newest, earlier = (self.folder / f"checkpoint{kind}" for kind in (".draft", ".pt", ".earlier.pt"))
        torch.save({**state, "history": [row.model_dump() for row in history]}, draft)
        if newest.is_file():
            newest.replace(earlier)
        draft.replace(newest)

    def load(self) -> tuple[dict[str, Any], list[Epoch]]:
        """State and history after the last finished epoch, both empty before the first.

        A damaged checkpoint is removed, and the one before it used, with a warning.
        """
        for name in ("checkpoint.pt", "checkpoint.earlier.pt"):
            path = self.folder / name
            if not path.exists():
                continue
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
                return state, [Epoch(**row) for row in state.pop("history")]
            # Of a file that is cut off, empty or no checkpoint, loading raises almost anything.
            except Exception as error:
                print(
                    f"warning: {path} is damaged ({first_line(error)}): the training resumes one epoch earlier if the "
                    "checkpoint before it is sound, and from the beginning otherwise.",
                    file=sys.stderr,
                )
                remove(path)
        return {}, []

    def part(self, name: str) -> "Checkpoint":
        """The checkpoint of a part of the training, in a folder of its own in this one."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return Checkpoint(folder)

    def run_key(self) -> str:
        """The key of the tracked run, the same before and after a kill."""
        path = self.folder / "run_key"
        key = path.read_text(encoding="ascii", errors="replace") if path.is_file() else ""
        if not _RUN_KEY.fullmatch(key):
            remove(path)
            key = uuid.uuid4().hex
            write_atomically(path, key)
        return key


def load_on_all_nodes(checkpoint: Checkpoint, job: TrainingJob, fabric: Fabric) -> tuple[dict[str, Any], list[Epoch]]:
    """State and history to continue from: of several nodes the first one's, whatever the others have.

    Raises UserError on a node that would train something else than the first.
    """
    state, history = checkpoint.load()
    if job.plan.nodes > 1:
        first, state, history = fabric.broadcast((fingerprint(job), state, history))
        if first != fingerprint(job):
            raise UserError("train.nodes: this node has other data, settings or code than the first one.")
    return state, history


@contextmanager
def open_checkpoint(name: str, *, keep: bool = False) -> Iterator[Checkpoint]:
    """Hold the checkpoint of that name; at the end it is removed, unless `keep` is set or an exception was raised.

    Raises TransientError where another process holds it.
    """
    folder = state_dir() / "checkpoints" / name
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TransientError(
            "another process is training exactly this (same data, settings and code): wait for it, or add "
            "another seed to `seeds` if you want a second one."
        ) from None
    try:
        yield Checkpoint(folder)
        if not keep:
            shutil.rmtree(folder)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: who waits for it notices, and makes a new one
        lock.release()
