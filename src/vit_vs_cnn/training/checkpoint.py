"""The state of a training that can be killed at any moment and resumes after its last finished epoch."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

import vit_vs_cnn
from vit_vs_cnn.core.errors import TransientError
from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.core.records import digest_of, write_atomically
from vit_vs_cnn.training.results import Epoch
from vit_vs_cnn.training.setup import TrainingJob

# Code that decides the outcome of a training.
_CODE = ("config/*.py", "data/augment/*.py", "data/loader.py", "models/*.py", "training/*.py")


def code_digest(*more: str) -> str:
    """A digest of the code that decides the outcome of a training, and of the files that `more` patterns match.

    Raises FileNotFoundError where a pattern matches no file: moved code must not leave the digest unnoticed.
    """
    digest = hashlib.blake2b(digest_size=12)
    package = Path(vit_vs_cnn.__file__).parent
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
        "plan": [plan.device.type, plan.devices, plan.precision, plan.compiled, plan.deterministic],
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
        """Replace the checkpoint in one atomic step."""
        draft = self.folder / "checkpoint.draft"
        torch.save({**state, "history": [row.model_dump() for row in history]}, draft)
        draft.replace(self.folder / "checkpoint.pt")

    def load(self) -> tuple[dict[str, Any], list[Epoch]]:
        """State and history after the last finished epoch, both empty before the first."""
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            return {}, []
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state, [Epoch(**row) for row in state.pop("history")]

    def part(self, name: str) -> "Checkpoint":
        """The checkpoint of a part of the training, in a folder of its own in this one."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return Checkpoint(folder)

    def run_key(self) -> str:
        """The key of the tracked run, the same before and after a kill."""
        path = self.folder / "run_key"
        if not path.is_file():
            write_atomically(path, uuid.uuid4().hex)
        return path.read_text(encoding="ascii")


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
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
