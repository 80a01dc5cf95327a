"""The outbox: records of a run on disk until the tracking store has them.

Every record is written here first and delivered from here, so that an unreachable store costs nothing and a killed
process loses nothing; `vit-vs-cnn sync` delivers what is pending. An outbox is a folder with header.json, events.jsonl
(append-only) and files/ (copies of artifacts that could not be uploaded).
"""

import json
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import Field

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.core.records import Record

Event = dict[str, Any]

_EVENTS = "events.jsonl"
_HEADER = "header.json"
_REMEDY = "deliver it with the version that wrote it, or delete its folder"


def now_ms() -> int:
    """Milliseconds since the epoch, as MLflow counts time."""
    return int(time.time() * 1000)


class RunRef(Record):
    """run.json: the MLflow run that made a stage's outputs.

    `key` identifies the run, as a tag, before it has an id in the store. `run_id` is None where the store did not have
    the run yet when this was written, and `experiment_id` also where an earlier release wrote it.
    """

    key: str
    run_id: str | None = None
    experiment_id: str | None = None
    experiment: str
    name: str


class Header(RunRef):
    """header.json: the MLflow run that the events belong to, and how many of them the store has.

    `creates_run` is false where the events are added to a run that another stage created. `deferred` says that another
    process delivers them while this one is written. `parent` is the key of the run that this one is a child of.
    """

    creates_run: bool
    deferred: bool = False
    parent: str | None = None
    created_ms: int = Field(default_factory=now_ms)
    delivered: int = 0


class Outbox:
    """An open outbox: the process that holds its `lock` writes it, the one that holds its delivery lock delivers it.

    Without `lock` another process writes it.
    """

    def __init__(self, folder: Path, lock: FileLock | None) -> None:
        self.folder, self._lock = folder, lock
        self._delivery_lock = FileLock(f"{folder}.delivery")
        self._events: list[Event] = []
        self._end_of_events = 0
        if lock is not None:
            _cut_torn_line(folder / _EVENTS)
        self.header = Header.read(folder / _HEADER, _REMEDY)
        self.refresh()

    def refresh(self) -> None:
        """Read what other processes have written and delivered in the meantime."""
        self.header = _header(self.folder / _HEADER) or self.header
        path = self.folder / _EVENTS
        if path.is_file():
            with path.open("rb") as file:
                file.seek(self._end_of_events)
                lines, newline, _ = file.read().rpartition(b"\n")
            self._end_of_events += len(lines + newline)
            if newline:
                self._events += [_event(line, path) for line in lines.split(b"\n")]
        elif not self.folder.is_dir():
            self._events = []  # another process has delivered all of them

    def append(self, event: Event) -> None:
        """Add an event, on disk before this returns."""
        with (self.folder / _EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def keep(self, path: Path) -> str:
        """Copy a file or folder into the outbox; returns where it is, relative to the outbox."""
        place = Path("files") / uuid.uuid4().hex / path.name
        (self.folder / place).parent.mkdir(parents=True)
        if path.is_dir():
            shutil.copytree(path, self.folder / place, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(path, self.folder / place)
        return str(place)

    @contextmanager
    def delivery(self) -> Iterator[None]:
        """Be the only process that delivers the outbox, and know how far others have."""
        with self._delivery_lock:
            self.refresh()
            yield
            if not self.folder.is_dir():
                Path(self._delivery_lock.lock_file).unlink(missing_ok=True)

    @property
    def pending(self) -> list[Event]:
        """The events that the store does not have yet, in order."""
        return self._events[self.header.delivered :]

    def mark_created(self, run_id: str, experiment_id: str) -> None:
        """Record that the store has the run."""
        self._update(run_id=run_id, experiment_id=experiment_id)

    def mark_delivered(self) -> None:
        """Record that the store has one more event."""
        self._update(delivered=self.header.delivered + 1)

    def _update(self, **fields: object) -> None:
        self.header = self.header.model_copy(update=fields)
        self.header.write(self.folder / _HEADER)

    def end_killed_run(self) -> None:
        """End a run whose process was killed, unless it has been resumed and ended on another machine."""
        is_over = self._events and self._events[-1]["kind"] in {"finish", "killed"}
        if self._lock is not None and self.header.creates_run and not is_over:
            self.append(new_event("killed"))

    def close(self, *, remove: bool = False) -> None:
        """Release the outbox. What is pending stays on disk; with `remove` nothing is, and nothing stays."""
        if self._lock is None:
            return
        if remove:
            shutil.rmtree(self.folder)
            _unlink_locks(self.folder)
        self._lock.release()


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
    if not (folder / _HEADER).is_file():
        header.write(folder / _HEADER)
    outbox = Outbox(folder, lock)
    # Who delivers it now may be another one than before the kill.
    outbox.header = outbox.header.model_copy(update={"deferred": header.deferred})
    outbox.header.write(folder / _HEADER)
    return outbox


def pending_outboxes(*, deferred: bool = False) -> Iterator[Outbox]:
    """The outboxes that no living process writes, open, the oldest first: a run comes before what is added to it.

    With `deferred` also those whose writers leave the delivery to others.
    """
    headers = {path.parent: header for path in outbox_dir().glob(f"*/{_HEADER}") if (header := _header(path))}
    for folder in sorted(headers, key=lambda folder: headers[folder].created_ms):
        lock: FileLock | None = FileLock(f"{folder}.lock")
        assert lock is not None
        try:
            lock.acquire(timeout=0)
        except Timeout:
            lock = None
        # The process that held it until now may have delivered it.
        if not folder.is_dir():
            if lock is not None:
                _unlink_locks(folder)
                lock.release()
        elif lock is not None or (deferred and headers[folder].deferred):
            yield Outbox(folder, lock)


def pending_keys() -> set[str]:
    """The keys of the runs that something is pending for."""
    return {Header.read(path, _REMEDY).key for path in outbox_dir().glob("*/header.json")}


def new_event(kind: str, **fields: Any) -> Event:
    """An event that happens now."""
    return {"kind": kind, "time_ms": now_ms(), **fields}


def _event(line: bytes, path: Path) -> Event:
    """The event of a line; of one that the disk has damaged an event that delivers nothing, with a warning."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and "kind" in event:
        return event
    print(f"warning: {path}: a record is damaged and is skipped; the others are delivered.", file=sys.stderr)
    return new_event("damaged")


def _header(path: Path) -> Header | None:
    try:
        return Header.read(path, _REMEDY)
    except UserError:
        if path.exists():
            raise
        return None  # another process has delivered it


def _unlink_locks(folder: Path) -> None:
    """Remove the files of locks that this process holds: one that waits for a released lock would have it nameless."""
    for suffix in (".lock", ".delivery"):
        Path(f"{folder}{suffix}").unlink(missing_ok=True)


def _cut_torn_line(path: Path) -> None:
    """Remove what a killed process wrote of its last line: the next event must not be glued to it."""
    content = path.read_bytes() if path.is_file() else b""
    complete, newline, torn = content.rpartition(b"\n")
    if torn:
        path.write_bytes(complete + newline)
