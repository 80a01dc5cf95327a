"""The database of studies, and the lock under which workers take trials from it."""

import hashlib
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from vit_vs_cnn.core.errors import TransientError, UserError, first_line
from vit_vs_cnn.core.paths import STORAGE_VARIABLE, studies_file
from vit_vs_cnn.core.sqlite import require_sound_database

# A running trial without a heartbeat for the grace period is taken to be that of a killed process.
HEARTBEAT_SECONDS = 5
GRACE_SECONDS = 30
_LOCK_TIMEOUT_SECONDS = 120.0
_AWAY_SECONDS = 300.0
_SECONDS_BETWEEN_CONNECTIONS = 1.0
# SQLite has one writer at a time; the others wait for so many seconds before they fail.
_ENGINE_OPTIONS: dict[str, dict[str, Any]] = {
    "sqlite": {"connect_args": {"timeout": 60.0}},
    "postgresql": {"pool_pre_ping": True},
}

optuna.logging.set_verbosity(optuna.logging.ERROR)
# Heartbeats and retries are marked as experimental in Optuna.
warnings.filterwarnings("ignore", category=ExperimentalWarning)


def storage_url() -> str:
    """OPTUNA_STORAGE, or the URL of the SQLite file in the project's mlruns/."""
    return os.environ.get(STORAGE_VARIABLE) or f"sqlite:///{studies_file()}"


def open_storage(url: str, *, waits: bool = False) -> RDBStorage:
    """Open the database of studies: SQLite for workers on one machine, PostgreSQL for workers on several.

    Once it is open, an unreachable server is waited for; with `waits` before that too. Raises UserError where it is of
    another kind, TransientError where it is unreachable.
    """
    backend = make_url(url).get_backend_name() if "://" in url else f"the file {url}"
    if backend not in _ENGINE_OPTIONS:
        raise UserError(
            f"{STORAGE_VARIABLE}: {backend} is not supported; use sqlite:///PATH for workers on one machine, "
            "postgresql://… for workers on several."
        )
    with storage_failures(url, ImportError, OSError, RuntimeError):
        if backend == "sqlite":
            database = Path(make_url(url).database or "")
            database.parent.mkdir(parents=True, exist_ok=True)
            require_sound_database(database)
        # Two processes that create the tables at the same time would disturb each other.
        with storage_lock(url, "tables", waits=waits):
            options = _ENGINE_OPTIONS[backend]
            storage = RDBStorage(url, options, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS)
        if backend != "sqlite":
            _wait_for_server(storage.engine)
        return storage


@contextmanager
def storage_failures(url: str, *others: type[Exception]) -> Iterator[None]:
    """Have a database that fails in here, and these `others`, be a TransientError."""
    failures: tuple[type[Exception], ...] = (SQLAlchemyError, StorageInternalError, *others)
    try:
        yield
    except failures as error:
        hint = "; its driver: pip install 'vit-vs-cnn[postgres]'" if isinstance(error, ImportError) else ""
        raise TransientError(f"{STORAGE_VARIABLE}: {url} cannot be used ({first_line(error)}){hint}.") from None


@contextmanager
def storage_lock(url: str, name: str, *, waits: bool = True) -> Iterator[None]:
    """Hold the lock `name`, which one process at a time can hold of all that use the database.

    With `waits` an unreachable server is waited for.
    """
    if make_url(url).get_backend_name() == "sqlite":
        with FileLock(f"{make_url(url).database}.workers.lock", timeout=_LOCK_TIMEOUT_SECONDS):
            yield
        return
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    if waits:
        _wait_for_server(engine)
    # The server releases an advisory lock when the connection ends, however the process ended.
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
        yield


def _wait_for_server(engine: sqlalchemy.Engine) -> None:
    """Have new connections wait for a server that is being restarted: a trial is worth more than these minutes."""

    @sqlalchemy.event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _: object, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        deadline = time.monotonic() + _AWAY_SECONDS
        while True:
            try:
                return dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_SECONDS_BETWEEN_CONNECTIONS)
