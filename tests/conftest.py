"""Small projects, settings and data sets that many tests share."""

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from vit_vs_cnn import layout
from vit_vs_cnn.config import Settings, merge, parse_settings
from vit_vs_cnn.data.prepared import PREPARED_SPLITS, DatasetInfo, SplitInfo, write_info, write_split

REPOSITORY = Path(__file__).parent.parent

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C's signal.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Two contestants that train in a second, so that a test can afford the real thing.
TINY: dict[str, Any] = {
    "seed": 0,
    "data": {"source": "digits", "name": "tiny", "path": "data/raw/digits.md", "image_size": 16},
    "recipe": {"batch_size": 16, "optimizer": {"lr": 0.002}, "augment": {"flip": 0.0}},
    "train": {"epochs": 2, "device": "cpu", "precision": "32-true"},
    "tune": {"trials": 0},
    "evaluate": {"bootstrap": 200},
    "explain": {"images": 2},
    "models": {
        "vit": {"timm": "vit_tiny_patch16_224", "args": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}},
        "resnet": {"timm": "resnet10t", "args": {"channels": [8, 8, 16, 16], "stem_width": 8}},
    },
}


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
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "VIT_VS_CNN_FAILURE"):
        monkeypatch.delenv(name, raising=False)
    layout.project_root.cache_clear()
    layout.main_root.cache_clear()
    yield folder
    layout.project_root.cache_clear()
    layout.main_root.cache_clear()


@pytest.fixture
def prepared(project: Path) -> DatasetInfo:
    """Bright and dark images in data/prepared of `project`: learnable in two epochs."""
    rng = np.random.default_rng(0)
    splits = {}
    for name, images in zip(PREPARED_SPLITS, (64, 24, 24), strict=True):
        labels = np.arange(images) % 3
        noise = rng.integers(0, 60, (images, 16, 16, 3))
        pixels = (noise + labels[:, None, None, None] * 90).astype(np.uint8)
        digest = write_split(layout.PREPARED / name, pixels, labels, [f"{name}/{i}.png" for i in range(images)])
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
    write_info(layout.PREPARED, info)
    return info
