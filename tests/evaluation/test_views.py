"""Answers averaged over views of an image."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from torch import Tensor

from vit_vs_cnn.config.schema import EvaluateSettings, Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import evaluated, trained
from vit_vs_cnn.data.dataset import DatasetInfo, Split
from vit_vs_cnn.evaluation.results import read_evaluation
from vit_vs_cnn.evaluation.views import measure_views, mirrored, six_views
from vit_vs_cnn.stages import evaluate, train
from vit_vs_cnn.tracking.run import read_ref
from vit_vs_cnn.tracking.store import tracking_uri

CPU = torch.device("cpu")


class Seen:
    """A network whose logits are the red pixels; it remembers the images that it was given."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.images.append(images)
        return images[..., 0].flatten(1).float()


def picture(side: int = 32) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8))


def test_a_mirrored_view_is_the_mean_of_both() -> None:
    image, seen = picture(), Seen()
    mean = mirrored(seen)(image).reshape(2, 32, 32)
    assert len(seen.images) == 2
    torch.testing.assert_close(mean, (image[..., 0].float() + image[..., 0].flip(2).float()) / 2)


@pytest.mark.parametrize(("side", "pixels"), [(8, 1), (32, 1), (224, 7)])
def test_six_views_are_airbenchs(side: int, pixels: int) -> None:
    image, seen = picture(side), Seen()
    mean = six_views(seen)(image)
    padded = torch.nn.functional.pad(image.permute(0, 3, 1, 2).float(), [pixels] * 4, mode="reflect")
    centre = image.permute(0, 3, 1, 2).float()
    after = padded[:, :, 2 * pixels :, 2 * pixels :]
    before = padded[:, :, :side, :side]
    weights = ((centre, 0.25), (after, 0.125), (before, 0.125))
    expected = sum((weight * (view + view.flip(3)) for view, weight in weights), torch.zeros(()))[:, 0]
    assert len(seen.images) == 6
    torch.testing.assert_close(mean, expected.flatten(1))


def test_images_that_only_the_views_get_right_are_counted() -> None:
    # The answer is the brighter half; the second image is bright on the left, and so dark on its mirror image's left.
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[0, :, :4], images[1, :, 4:], images[2, :, :4] = 200, 100, 100
    test = Split(images, np.array([0, 0, 1]), ("a", "b", "c"))

    def halves(batch: Tensor) -> Tensor:
        red = batch[..., 0].float()
        return torch.stack([red[:, :, :4].mean(dim=(1, 2)), red[:, :, 4:].mean(dim=(1, 2))], dim=1)

    plain = halves(torch.from_numpy(images)).numpy()
    assert measure_views(halves, plain, test, EvaluateSettings(), CPU) is None
    views = measure_views(halves, plain, test, EvaluateSettings(views="flip"), CPU)
    assert views is not None
    # Mirrored, both halves are as bright: the first class wins everywhere.
    assert (views.forwards, views.gained, views.lost) == (2, 1, 0)
    assert views.accuracy == pytest.approx(2 / 3)
    assert views.accuracy_low < 2 / 3 < views.accuracy_high


@pytest.mark.usefixtures("unexported")
def test_views_stand_beside_the_plain_scores_and_change_none(
    make_settings: Callable[..., Settings], prepared: DatasetInfo
) -> None:
    train.run(make_settings(), "resnet", 0)
    evaluate.run(make_settings(), "resnet", 0)
    plain = read_evaluation(evaluated("resnet", 0)).metrics
    evaluate.run(make_settings({"evaluate": {"views": 6}}), "resnet", 0)
    metrics = read_evaluation(evaluated("resnet", 0)).metrics
    assert metrics.views is not None
    assert metrics.views.forwards == 6
    ignored: dict[str, Any] = {"views": None, "peak_memory_mb": None}
    assert metrics.model_copy(update=ignored) == plain.model_copy(update=ignored)
    run_id = read_ref(trained("resnet", 0)).run_id
    assert run_id is not None
    assert MlflowClient(tracking_uri()).get_run(run_id).data.metrics["views/accuracy"] == metrics.views.accuracy


def test_other_views_are_a_users_error(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(UserError, match=r"evaluate\.views"):
        make_settings({"evaluate": {"views": 2}})
