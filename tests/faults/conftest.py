"""The commands that the campaigns start, and the project and the Prefect server of those that run the flow."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.forked_commands import Forks
from harness.killed_project import KilledProject, RunningServer, forks_for, served
from harness.small_project import SmallProject


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.close()


@pytest.fixture
def small(tmp_path: Path) -> SmallProject:
    return KilledProject(tmp_path)


@pytest.fixture
def server(small: SmallProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    with served(small, monkeypatch) as server:
        yield server


@pytest.fixture
def flow_forks(small: SmallProject, server: RunningServer, tmp_path: Path) -> Iterator[Forks]:
    """Commands of the project that have imported Prefect."""
    scratch = tmp_path / "forks"
    scratch.mkdir()
    with forks_for(small, server, scratch) as forks:
        yield forks
