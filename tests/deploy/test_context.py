"""What of a project folder a build of the image gets: .dockerignore, read by buildah."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from factories import REPOSITORY

KEPT = {
    "params.yaml",
    "src/vit_vs_cnn/__init__.py",
    "data/raw/cifar10.md",
    "data/raw/pets.dvc",
    "deploy/compose.yaml",
    "mlruns/README.md",
}
LEFT_OUT = {
    ".env",
    "deploy/.env",
    "deploy/secrets/signing_key",
    ".dvc/config.local",
    "data/pets/cat/1.jpg",
    "data/pets.csv",
    "data/raw/pets/cat/1.jpg",
    "data/raw/pets/README.txt",
    "data/prepared/dataset.json",
    "pets.zip",
    "more/pets.tar.gz",
    "more/train.parquet",
    "mlruns/mlflow.db",
    "runs/demo/params.yaml",
}


@pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah not on this machine")
@pytest.mark.skipif(os.geteuid() != 0, reason="a build without a container engine needs root")
def test_no_data_and_no_secrets_get_into_the_image(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in KEPT | LEFT_OUT:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    shutil.copy(REPOSITORY / ".dockerignore", project)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")

    image = tmp_path / "image"
    storage = ["--root", tmp_path / "storage", "--runroot", tmp_path / "run", "--storage-driver", "vfs"]
    built = ["build", "--isolation", "chroot", "--file", tmp_path / "Dockerfile", "--output", image, project]
    subprocess.run(["buildah", *storage, *built], env=os.environ | {"TMPDIR": str(tmp_path)}, check=True)
    found = {str(path.relative_to(image)) for path in image.rglob("*") if path.is_file()}
    assert found - {".dockerignore"} == KEPT
