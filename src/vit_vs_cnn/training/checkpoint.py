"""The state of a training that can be killed at any moment and goes on from its last finished epoch."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from vit_vs_cnn.config.schema import ModelSettings, Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.training.code import code_digest
from vit_vs_cnn.training.results import Epoch


def fingerprint(settings: Settings, model: ModelSettings, info: DatasetInfo, device: torch.device) -> str:
    """What a training depends on, as a digest: settings, data, code, version of PyTorch, kind of device."""
    facts = {
        "seed": settings.seed,
        "train": settings.train.model_dump(),
        "model": model.model_dump(),
        "data": [info.splits["train"].digest, info.splits["val"].digest],
        "torch": torch.__version__,
        "device": device.type,
        "code": code_digest(),
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class CheckpointFile:
    """The last finished epoch of a training, in a folder that this training alone writes to."""

    folder: Path

    def save(self, state: dict[str, Any], history: Sequence[Epoch]) -> None:
        """Replace the checkpoint in one atomic step."""
        draft = self.folder / "checkpoint.draft"
        torch.save({**state, "history": [asdict(epoch) for epoch in history]}, draft)
        draft.replace(self.folder / "checkpoint.pt")

    def load(self) -> tuple[dict[str, Any], list[Epoch]] | None:
        """State and history of the last finished epoch, None at the start. Tensors and plain values only."""
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            return None
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state, [Epoch(**epoch) for epoch in state.pop("history")]


class Checkpoints:
    """The folder of one training's checkpoint, `file`; only one process at a time may hold it."""

    def __init__(self, name: str) -> None:
        self._folder = state_dir() / "checkpoints" / name
        self._folder.mkdir(parents=True, exist_ok=True)
        self.file = CheckpointFile(self._folder)
        self._lock = FileLock(f"{self._folder}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                "another process is training exactly this (same data, settings and code): wait for it, or change "
                "`seed` if you want a second one."
            ) from None

    def run_key(self) -> str:
        """The key of the tracked run, the same before and after a kill."""
        path = self._folder / "run_key"
        if not path.is_file():
            path.write_text(uuid.uuid4().hex, encoding="ascii")
        return path.read_text(encoding="ascii")

    def remove(self) -> None:
        """The training is complete: nothing to go on from."""
        shutil.rmtree(self._folder)
        self.close()

    def close(self) -> None:
        """Let another process go on."""
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)
