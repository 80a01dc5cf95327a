"""The outbox: records of a run on disk until the tracking store has them.

Every record is written here first and delivered from here, so that an unreachable store costs nothing and a killed
process loses nothing; `vit-vs-cnn sync` delivers what is pending. An outbox is a folder with header.json, events.jsonl
(append-only) and files/ (copies of artifacts that could not be uploaded).
"""

import json
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import Field

from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.core.records import Record

Event = dict[str, Any]

_REMEDY = "deliver it with the version that wrote it, or delete its folder"


def now_ms() -> int:
    """Milliseconds since the epoch, as MLflow counts time."""
    return int(time.time() * 1000)


class RunRef(Record):
    """run.json: the MLflow run that made a stage's outputs.

    `key` identifies the run, as a tag, before it has an id in the store. `run_id` is None where the store did not have
    the run yet when this was written.
    """

    key: str
    run_id: str | None = None
    experiment: str
    name: str


class Header(RunRef):
    """header.json: the MLflow run that the events belong to, and how many of them the store has.

    `creates_run` is false where the events are added to a run that another stage created. `parent` is the key of the
    run that this one is a child of.
    """

    creates_run: bool
    parent: str | None = None
    created_ms: int = Field(default_factory=now_ms)
    delivered: int = 0


class Outbox:
    """An open outbox; the process that holds its lock is the only one that writes and delivers it."""

    def __init__(self, folder: Path, lock: FileLock) -> None:
        self.folder, self._lock = folder, lock
        self.header = Header.read(folder / "header.json", _REMEDY)
        self._events = _read_events(folder / "events.jsonl")

    def append(self, event: Event) -> None:
        """Add an event, on disk before this returns."""
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
        self._events.append(event)

    def keep(self, path: Path) -> str:
        """Copy a file or folder into the outbox; returns where it is, relative to the outbox."""
        place = Path("files") / uuid.uuid4().hex / path.name
        (self.folder / place).parent.mkdir(parents=True)
        if path.is_dir():
            shutil.copytree(path, self.folder / place, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(path, self.folder / place)
        return str(place)

    @property
    def pending(self) -> list[Event]:
        """The events that the store does not have yet, in order."""
        return self._events[self.header.delivered :]

    def mark_delivered(self, run_id: str, events: int = 0) -> None:
        """Record that the store has the run, and so many more events."""
        delivered = self.header.delivered + events
        self.header = self.header.model_copy(update={"run_id": run_id, "delivered": delivered})
        self.header.write(self.folder / "header.json")

    def end_killed_run(self) -> None:
        """End a run whose process was killed, unless it has been resumed and ended on another machine."""
        if self.header.creates_run and not (self._events and self._events[-1]["kind"] in {"finish", "killed"}):
            self.append(new_event("killed"))

    def close(self) -> None:
        """Release the outbox; what is pending stays on disk."""
        self._lock.release()

    def remove(self) -> None:
        """Delete the outbox: the store has all of it."""
        shutil.rmtree(self.folder)
        self.close()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def outbox_dir() -> Path:
    """The folder of all outboxes of the project."""
    return state_dir() / "outbox"


def open_outbox(folder_name: str, header: Header) -> Outbox:
    """Create the outbox of that name, or continue the one that a killed process left."""
    folder = outbox_dir() / folder_name
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock")
    lock.acquire()  # `sync` may be delivering it
    folder.mkdir(exist_ok=True)
    if not (folder / "header.json").is_file():
        header.write(folder / "header.json")
    return Outbox(folder, lock)


def pending_outboxes() -> Iterator[Outbox]:
    """The outboxes that no living process holds, open, the oldest first: a run comes before what is added to it."""
    created = {path.parent: Header.read(path, _REMEDY).created_ms for path in outbox_dir().glob("*/header.json")}
    for folder in sorted(created, key=lambda folder: created[folder]):
        lock = FileLock(f"{folder}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            # The process that held it until now may have delivered it.
            if folder.is_dir():
                yield Outbox(folder, lock)
            else:
                lock.release()


def pending_keys() -> set[str]:
    """The keys of the runs that something is pending for."""
    return {Header.read(path, _REMEDY).key for path in outbox_dir().glob("*/header.json")}


def new_event(kind: str, **fields: Any) -> Event:
    """An event that happens now."""
    return {"kind": kind, "time_ms": now_ms(), **fields}


def _read_events(path: Path) -> list[Event]:
    content = path.read_bytes() if path.is_file() else b""
    complete, newline, torn = content.rpartition(b"\n")
    if torn:
        # A process was killed while it wrote its last line; the next event must not be glued to it.
        path.write_bytes(complete + newline)
    return [json.loads(line) for line in complete.splitlines()]
