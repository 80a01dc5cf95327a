"""Prefect's SQLite file under several workers: transactions wait for one another instead of failing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import MODELS_DEPENDENCIES
from prefect.server.utilities.database import get_dialect
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class _WritersWait(AioSqliteConfiguration):
    """Takes SQLite's lock when a transaction begins.

    A transaction that reads first and then writes fails at once, whatever the timeout, where another one has written in
    between ("database is locked"): worker heartbeats did so several times in ten minutes under two workers.
    """

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def let_writers_wait() -> None:
    """Have the server that is created in this process begin its transactions so, where its database is SQLite."""
    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if get_dialect(url).name == "sqlite":
        MODELS_DEPENDENCIES["database_config"] = _WritersWait(connection_url=url)
