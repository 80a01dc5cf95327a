"""The database of studies, and the lock under which workers take trials from it."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from vit_vs_cnn.core.errors import TransientError, UserError, first_line
from vit_vs_cnn.core.paths import mlruns_dir

STORAGE_VARIABLE = "OPTUNA_STORAGE"

# A running trial without a heartbeat for the grace period is taken to be that of a killed process.
HEARTBEAT_SECONDS = 5
GRACE_SECONDS = 30
_LOCK_TIMEOUT_SECONDS = 120.0
# SQLite has one writer at a time; the others wait for so many seconds before they fail.
_SQLITE_OPTIONS = {"connect_args": {"timeout": 60.0}}
_POSTGRESQL_OPTIONS = {"pool_pre_ping": True}

optuna.logging.set_verbosity(optuna.logging.ERROR)
# Heartbeats and retries are marked as experimental in Optuna.
warnings.filterwarnings("ignore", category=ExperimentalWarning)


def storage_url() -> str:
    """OPTUNA_STORAGE, or the URL of the SQLite file in the project's mlruns/."""
    return os.environ.get(STORAGE_VARIABLE) or f"sqlite:///{mlruns_dir() / 'optuna.db'}"


class StudyStorage:
    """An open database of studies: SQLite for one machine, PostgreSQL for several; `optuna` is Optuna's storage."""

    def __init__(self, url: str) -> None:
        """Open the database. Raises UserError where it is of another kind, TransientError where it is unreachable."""
        kind = make_url(url).get_backend_name() if "://" in url else f"the file {url}"
        if kind not in ("sqlite", "postgresql"):
            raise UserError(
                f"{STORAGE_VARIABLE}: {kind} is not supported; use sqlite:///PATH for workers on one machine, "
                "postgresql://… for workers on several."
            )
        self._url = make_url(url)
        self._is_sqlite = kind == "sqlite"
        try:
            if self._is_sqlite:
                Path(self._url.database or "").parent.mkdir(parents=True, exist_ok=True)
            # Two processes that create the tables at the same time would disturb each other.
            with self.lock("tables"):
                options = _SQLITE_OPTIONS if self._is_sqlite else _POSTGRESQL_OPTIONS
                self.optuna = RDBStorage(url, options, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS)
        except (SQLAlchemyError, StorageInternalError, ImportError, OSError, RuntimeError) as error:
            hint = "; its driver: pip install 'vit-vs-cnn[postgres]'" if isinstance(error, ImportError) else ""
            raise TransientError(
                f"{STORAGE_VARIABLE}: {self.shown_url} cannot be used ({first_line(error)}){hint}."
            ) from None

    @property
    def shown_url(self) -> str:
        """The URL without its password."""
        return self._url.render_as_string(hide_password=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock `name`, which one process at a time can hold of all that use the database."""
        if self._is_sqlite:
            with FileLock(f"{self._url.database}.workers.lock", timeout=_LOCK_TIMEOUT_SECONDS):
                yield
        else:
            with _advisory_lock(self._url, name):
                yield


@contextmanager
def _advisory_lock(url: URL, name: str) -> Iterator[None]:
    """Hold a lock of PostgreSQL, which the server releases when the connection ends, however the process ended."""
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
        yield
