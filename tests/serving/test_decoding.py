"""Files are decoded by `predict` and `serve` as they were for the training, from prepare to the registered model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PREPARED, trained
from vit_vs_cnn.data.dataset import read_info, read_split
from vit_vs_cnn.registry.loading import load_exported
from vit_vs_cnn.serving.decoder import IMAGES, decode_files
from vit_vs_cnn.serving.predict import Prediction, predict_files
from vit_vs_cnn.serving.saliency import render_saliency
from vit_vs_cnn.stages import prepare, train

LEVELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "12 bits": lambda shares: (4095 * shares).astype(np.uint16),
    "float": lambda shares: (shares * 50 - 20).astype(np.float32),
}


def write_images(folder: Path, levels: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Dark and bright TIFFs of two classes, twice as wide as high."""
    rng = np.random.default_rng(0)
    for bright, name in enumerate(("dark", "bright")):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            shares = 0.4 * bright + 0.6 * rng.random((12, 24))
            Image.fromarray(levels(shares)).save(folder / name / f"{number}.tif")
    return folder


@pytest.mark.parametrize(("contestant", "levels"), [("vit", "12 bits"), ("resnet", "float")])
def test_files_are_decoded_as_for_the_training(
    project: Path, make_settings: Callable[..., Settings], contestant: str, levels: str
) -> None:
    images = write_images(project / "images", LEVELS[levels])
    data = {"source": "folder", "path": str(images), "fit": "pad", "channels": "grey"}
    # Colours of grey images do not change: the same recipe serves both.
    settings = make_settings({"data": data, "recipe": {"augment": {"saturation": 0.5, "hue": 0.2}}})
    prepare.run(settings)
    train.run(settings, contestant, 0)
    model = load_exported(trained(contestant, 0) / "model", "tiny-classifier", 1, torch.device("cpu"))
    assert model.decoding == read_info(PREPARED).decoding
    assert (model.decoding.fit, model.decoding.channels) == ("pad", "grey")

    test = read_split(PREPARED, "test")
    files = [images / name for name in test.names]
    kind, pixels = decode_files([path.read_bytes() for path in files], model.image_size, model.decoding, 10**6, 9, 9)
    assert (kind, pixels) == (IMAGES, test.images.tobytes())
    expected = model.probabilities(test.images)
    for prediction, row in zip(predict_files(model, files), expected, strict=True):
        assert isinstance(prediction, Prediction)
        assert dict(prediction.top)[model.classes[0]] == pytest.approx(row[0], rel=1e-5)

    # The network sees one channel, the model takes three; and it is rebuilt for the saliency map.
    first = next(weights for weights in model.program.state_dict().values() if weights.ndim == 4)
    assert first.shape[1] == 1
    again = model.rebuilt.probabilities(torch.from_numpy(np.array(test.images))).numpy()
    np.testing.assert_allclose(again, expected, atol=1e-5)
    (shown,) = render_saliency(model, 0, np.array(test.images[:1]))
    assert shown.variants.shape[1:] == test.images.shape[1:]
