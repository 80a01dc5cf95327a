"""Small projects, settings and data sets that many tests share."""

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from filelock import FileLock

import harness.counting  # noqa: F401 - before any process is started

if TYPE_CHECKING:  # imported by the fixtures: the process that hands out the tests has no use for PyTorch and MLflow
    from vit_vs_cnn.config.schema import Settings
    from vit_vs_cnn.data.dataset import DatasetInfo

# A busy machine may take any time for an example.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C's signal.
signal.signal(signal.SIGINT, signal.default_int_handler)


# The modules that take minutes, the longest first.
LONG = (
    "test_flow_runs", "test_scaling", "test_pipeline", "test_study_flow", "test_stage_process", "test_search",
    "test_bare_training", "test_init",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, so that at the end no process waits for another."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def compiler_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of compiled kernels for these tests alone: locks in the machine's own may be held by anybody."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path_factory.mktemp("inductor"))


@pytest.fixture(scope="session", autouse=True)
def unsynced_databases() -> None:
    """The tests' own databases do not wait for the disk: no test cuts the power."""
    from sqlalchemy import Engine, event

    @event.listens_for(Engine, "connect")
    def unsync(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="session", autouse=True)
def config_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The key that signs models is one of the tests."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture
def settings(make_settings: "Callable[..., Settings]") -> "Settings":
    return make_settings()


@pytest.fixture
def make_settings() -> "Callable[..., Settings]":
    from factories import TINY
    from vit_vs_cnn.config.load import parse_settings
    from vit_vs_cnn.config.nested import merge

    def make(overlay: dict[str, Any] | None = None) -> "Settings":
        return parse_settings(merge(TINY, overlay or {}))

    return make


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database without runs: creating its tables takes seconds, so all processes share it."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    path = shared / "store" / "mlflow.db"
    path.parent.mkdir(exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            from mlflow import MlflowClient

            draft = path.with_name("draft.db")
            MlflowClient(f"sqlite:///{draft}").search_experiments()
            draft.rename(path)
    return path


@pytest.fixture(scope="session")
def empty_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository without commits."""
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    shutil.rmtree(folder / ".git" / "hooks")
    return folder


@pytest.fixture
def project(
    tmp_path: Path, empty_store: Path, empty_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """An empty project folder as the working directory, with its own tracking store."""
    from factories import REPOSITORY
    from vit_vs_cnn.core import paths

    folder = tmp_path / "project"
    shutil.copytree(empty_repository, folder)
    (folder / "mlruns").mkdir()
    shutil.copy(empty_store, folder / "mlruns")
    for name in ("params.yaml", "dvc.yaml", ".gitignore"):
        shutil.copy(REPOSITORY / name, folder)
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "VIT_VS_CNN_ERROR_REPORT"):
        monkeypatch.delenv(name, raising=False)
    paths.project_root.cache_clear()
    paths.main_root.cache_clear()
    yield folder
    paths.project_root.cache_clear()
    paths.main_root.cache_clear()


@pytest.fixture
def prepared(project: Path) -> "DatasetInfo":
    """Bright and dark images in data/prepared of `project`: learnable in two epochs."""
    import numpy as np

    from vit_vs_cnn.core import paths
    from vit_vs_cnn.data.checks import Checks, write_checks
    from vit_vs_cnn.data.dataset import PREPARED_SPLITS, DatasetInfo, SplitInfo, write_info, write_split

    rng = np.random.default_rng(0)
    splits = {}
    for name, images in zip(PREPARED_SPLITS, (64, 24, 24), strict=True):
        labels = np.arange(images) % 3
        noise = rng.integers(0, 60, (images, 16, 16, 3))
        pixels = (noise + labels[:, None, None, None] * 90).astype(np.uint8)
        digest = write_split(paths.PREPARED / name, pixels, labels, [f"{name}/{i}.png" for i in range(images)])
        splits[name] = SplitInfo(images=images, counts=tuple(np.bincount(labels).tolist()), digest=digest)
    info = DatasetInfo(
        name="tiny",
        source="digits",
        description="three greys",
        classes=("dark", "grey", "bright"),
        image_size=16,
        split_seed=0,
        mean=(0.45, 0.45, 0.45),
        std=(0.3, 0.3, 0.3),
        splits=splits,
        digest="0123456789abcdef",
    )
    write_info(paths.PREPARED, info)
    write_checks(paths.PREPARED, Checks(images=112, counts={}, findings=()))
    return info


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage train without its export, which takes longer than to train; it is in tests/models/test_export.py."""

    def export(*arguments: Any) -> None:
        folder: Path = arguments[-1]
        folder.mkdir(exist_ok=True)
        (folder / "MLmodel").write_text("flavors: {}\n")

    monkeypatch.setattr("vit_vs_cnn.stages.train.export_model", export)
