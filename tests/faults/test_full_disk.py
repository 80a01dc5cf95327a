"""A disk that takes nothing more, of a running server: temporary files cannot be made."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.model_server import SIZE, Store, serving
from harness.small_project import wait_for

pytest_plugins = ["harness.serving_fixtures"]


def test_a_server_goes_on_with_its_model_says_so_and_follows_the_alias_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with serving(store, tmp_path) as server:
        shutil.rmtree(temporary)
        store.promote(2)
        try:
            health = wait_for(lambda: (found := server.get("/health"))["status"] == "degraded" and found, 300)
            assert "champion cannot be read: FileNotFoundError" in health["registry"]
            assert server.invoke(np.zeros((1, SIZE, SIZE, 3), np.uint8).tolist()).status == 200
        finally:
            store.promote(1)
        temporary.mkdir()
        wait_for(lambda: server.get("/health")["status"] == "ok", 300)
