"""What a run wants recorded, kept on disk until the tracking store has it.

Every record goes to a journal first and from there to MLflow, so a store that is away costs nothing: the journal
stays, and `vit-vs-cnn sync` sends it later. A journal is a folder with `header.json`, `events.jsonl` (append-only),
`sent.json` (how far the store has it) and `files/` (copies of the artifacts).
"""

import json
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vit_vs_cnn.core.paths import state_dir


@dataclass(frozen=True)
class Header:
    """Which MLflow run the events belong to.

    `key` identifies the run before it has an id in the store. `own` is false where the journal adds to a run that
    another stage created. `parent` is the key of the run that this one is a part of.
    """

    key: str
    experiment: str
    name: str
    created_ms: int
    own: bool
    parent: str | None = None


@dataclass
class Sent:
    """How far the store has the journal: the run's id, and the number of events sent."""

    run_id: str | None = None
    events: int = 0


class Outbox:
    """An open journal; the process that holds it is the only one that writes or sends it."""

    def __init__(self, folder: Path, lock: FileLock) -> None:
        self.folder = folder
        self._lock = lock
        self.header = Header(**json.loads((folder / "header.json").read_text(encoding="utf-8")))
        sent = folder / "sent.json"
        self.sent = Sent(**json.loads(sent.read_text(encoding="utf-8"))) if sent.is_file() else Sent()

    def append(self, kind: str, **fields: Any) -> None:
        """Add one event, on disk before this returns."""
        event = {"kind": kind, "time_ms": now_ms(), **fields}
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def keep_file(self, source: Path) -> str:
        """Copy a file or folder into the journal and return its place in it, relative to the journal's folder."""
        place = Path("files") / uuid.uuid4().hex / source.name
        target = self.folder / place
        target.parent.mkdir(parents=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, target)
        return str(place)

    def unsent(self) -> Iterator[dict[str, Any]]:
        """The events that the store does not have yet, in order."""
        path = self.folder / "events.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines[self.sent.events :]:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return  # the last line of a process that was killed while writing it

    def is_finished(self) -> bool:
        """Whether the run came to its end, so that nothing will be added."""
        path = self.folder / "events.jsonl"
        return path.is_file() and any('"kind": "finish"' in line for line in path.read_text().splitlines()[-3:])

    def mark_delivered(self, *, run_id: str | None = None, events: int = 0) -> None:
        """Remember what the store has, in one atomic step."""
        self.sent = Sent(run_id or self.sent.run_id, self.sent.events + events)
        draft = self.folder / "sent.json.draft"
        draft.write_text(json.dumps(asdict(self.sent)), encoding="utf-8")
        draft.replace(self.folder / "sent.json")

    def close(self) -> None:
        """Let go of the journal; it stays on disk."""
        self._lock.release()

    def remove(self) -> None:
        """Delete the journal: the store has all of it."""
        shutil.rmtree(self.folder)
        self.close()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def outbox_dir() -> Path:
    """The folder of all journals of the project."""
    return state_dir() / "unsent"


def open_outbox(folder_name: str, header: Header) -> Outbox:
    """Create the journal of that name, or go on with it where a killed process left it."""
    folder = outbox_dir() / folder_name
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock")
    lock.acquire(timeout=60)
    folder.mkdir(exist_ok=True)
    if not (folder / "header.json").is_file():
        draft = folder / "header.json.draft"
        draft.write_text(json.dumps(asdict(header)), encoding="utf-8")
        draft.replace(folder / "header.json")
    _drop_torn_line(folder / "events.jsonl")
    return Outbox(folder, lock)


def pending_outboxes() -> Iterator[Outbox]:
    """The journals that no living process holds, oldest run first, those that create a run before those that add."""
    folders = [path.parent for path in outbox_dir().glob("*/header.json")]
    headers = {folder: json.loads((folder / "header.json").read_text(encoding="utf-8")) for folder in folders}
    for folder in sorted(folders, key=lambda folder: (not headers[folder]["own"], headers[folder]["created_ms"])):
        lock = FileLock(f"{folder}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        yield Outbox(folder, lock)


def now_ms() -> int:
    """Milliseconds since the epoch, as MLflow counts time."""
    return int(time.time() * 1000)


def _drop_torn_line(events: Path) -> None:
    """Cut off what a killed process wrote of its last line, or the next event would be glued to it."""
    if events.is_file():
        content = events.read_bytes()
        if not content.endswith(b"\n"):
            events.write_bytes(content[: content.rfind(b"\n") + 1])
