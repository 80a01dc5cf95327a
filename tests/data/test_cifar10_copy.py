"""All of CIFAR-10 as JPEG files, where the copy for development is at hand."""

from pathlib import Path

import numpy as np
import pytest

from conftest import REPOSITORY
from vit_vs_cnn.config import DataSettings
from vit_vs_cnn.data.prepare import prepare
from vit_vs_cnn.data.prepared import read_split

COPY = REPOSITORY.parent / "shared" / "data" / "cifar10-images.tar.gz"


@pytest.mark.skipif(not COPY.is_file(), reason=f"the JPEG copy of CIFAR-10 is not at {COPY}")
def test_all_sixty_thousand_images_are_prepared(tmp_path: Path) -> None:
    settings = DataSettings(source="folder", name="cifar10-jpeg", path=str(COPY))
    info = prepare(settings, tmp_path).info
    assert {split: part.images for split, part in info.splits.items()} == {
        "train": 45_000,
        "val": 5_000,
        "test": 10_000,
    }
    assert info.classes[:3] == ("airplane", "automobile", "bird")
    assert all(set(part.counts) == {part.images // 10} for part in info.splits.values())
    # What anybody measures on CIFAR-10's training pixels, to the two digits that JPEG leaves.
    np.testing.assert_allclose(info.mean, (0.49, 0.48, 0.45), atol=0.01)
    assert read_split(tmp_path, "test").images.shape == (10_000, 32, 32, 3)
