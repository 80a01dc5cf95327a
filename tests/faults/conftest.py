"""The commands that the campaigns start."""

from collections.abc import Iterator

import pytest

from harness.forked_commands import Forks


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.close()
