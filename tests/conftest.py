"""Small projects, settings and data sets that many tests share."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from mlflow import MlflowClient

from factories import REPOSITORY, TINY
from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.config.nested import merge
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core import paths
from vit_vs_cnn.data.checks import Checks, write_checks
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, DatasetInfo, SplitInfo, write_info, write_split

# A busy machine may take any time for an example.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C's signal.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def compiler_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of compiled kernels for these tests alone: locks in the machine's own may be held by anybody."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path_factory.mktemp("inductor"))


@pytest.fixture(scope="session", autouse=True)
def config_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The key that signs models is one of the tests."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture
def settings() -> Settings:
    return parse_settings(TINY)


@pytest.fixture
def make_settings() -> Callable[..., Settings]:
    def make(overlay: dict[str, Any] | None = None) -> Settings:
        return parse_settings(merge(TINY, overlay or {}))

    return make


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database without runs: creating its tables takes seconds, copying it does not."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def project(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project folder as the working directory, with its own tracking store."""
    folder = tmp_path / "project"
    (folder / "mlruns").mkdir(parents=True)
    shutil.copy(empty_store, folder / "mlruns")
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
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
def prepared(project: Path) -> DatasetInfo:
    """Bright and dark images in data/prepared of `project`: learnable in two epochs."""
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
