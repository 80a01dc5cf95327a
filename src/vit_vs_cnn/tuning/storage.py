"""The storage of studies, opened, and the lock under which workers take trials from them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from vit_vs_cnn.core.errors import TransientError, UserError
from vit_vs_cnn.tuning.address import STORAGE_VARIABLE

_SECONDS_TO_WAIT_FOR_THE_LOCK = 120.0
# SQLite has one writer at a time; the others wait for it this long before they give up.
_SECONDS_TO_WAIT_FOR_SQLITE = 60.0


class StudyStorage:
    """An open storage: SQLite for one machine, PostgreSQL or a journal file on a shared folder for several."""

    def __init__(self, address: str) -> None:
        """Open the storage at `address`. Raises UserError where it is of another kind or cannot be used."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._url = make_url(address) if "://" in address else None
        self._path = Path(address) if self._url is None else Path(self._url.database or "")
        self._kind = "journal" if self._url is None else self._url.get_backend_name()
        if self._kind not in ("journal", "sqlite", "postgresql"):
            raise UserError(
                f"{STORAGE_VARIABLE}: {self._kind} is not supported; use postgresql://…, sqlite:///… or the path of a "
                "journal file."
            )
        try:
            if self._kind != "postgresql":
                self._path.parent.mkdir(parents=True, exist_ok=True)
            # Two workers that create the tables at once would be in each other's way.
            with self.lock("tables"):
                self.optuna = self._open()
        except (SQLAlchemyError, StorageInternalError, ImportError, OSError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            hint = "; its driver: pip install 'vit-vs-cnn[postgres]'" if isinstance(error, ImportError) else ""
            raise TransientError(f"{STORAGE_VARIABLE}: {self.shown} cannot be used ({reason}){hint}.") from None

    @property
    def shown(self) -> str:
        """The address without its password."""
        return str(self._path) if self._url is None else self._url.render_as_string(hide_password=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Only one process at a time, of all that use the storage, is inside the lock `name`."""
        if self._kind == "postgresql":
            assert self._url is not None
            with _postgres_lock(self._url, name):
                yield
        else:
            with FileLock(f"{self._path}.workers.lock", timeout=_SECONDS_TO_WAIT_FOR_THE_LOCK):
                yield

    def _open(self) -> BaseStorage:
        if self._url is None:
            return JournalStorage(JournalFileBackend(str(self._path)))
        url = self._url.render_as_string(hide_password=False)
        waits = {"connect_args": {"timeout": _SECONDS_TO_WAIT_FOR_SQLITE}} if self._kind == "sqlite" else {}
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True, **waits})


@contextmanager
def _postgres_lock(url: URL, name: str) -> Iterator[None]:
    """An advisory lock: the server lets go of it when the connection ends, however the process does."""
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
        yield
