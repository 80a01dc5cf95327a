"""A client of a Prefect server at a known address."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vit_vs_cnn.orchestration.prefect_server import prefect_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@contextmanager
def client_at(api: str) -> Iterator["SyncPrefectClient"]:
    """A synchronous client of the server whose API is at `api`."""
    # Prefect reads its settings when it is imported.
    os.environ.update(prefect_settings())
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        yield client
