"""Trainings that collapsed, and those that were stopped while they were still rising."""

import csv
import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import trained
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.stages import train
from vit_vs_cnn.training.outcome import chance_loss, has_collapsed, is_still_rising
from vit_vs_cnn.training.results import Epoch

Make = Callable[..., Settings]
LABELS = np.arange(24) % 3


def epochs(accuracies: Sequence[float], loss: float = 0.5, top_share: float = 0.4) -> list[Epoch]:
    return [
        Epoch(
            epoch=number,
            elapsed_seconds=1.0,
            epoch_seconds=1.0,
            learning_rate=0.1,
            train_loss=1.0,
            train_accuracy=0.5,
            val_loss=loss,
            val_accuracy=accuracy,
            val_balanced_accuracy=accuracy,
            val_macro_f1=accuracy,
            val_top_share=top_share,
            images_per_second=1.0,
        )
        for number, accuracy in enumerate(accuracies, start=1)
    ]


@pytest.mark.parametrize(
    ("loss", "top_share", "warmup", "collapsed"),
    [
        (1.0986, 1.0, 1, True),
        (3.0, 0.99, 1, True),
        (1.0986, 1.0, 2, False),  # it is warming up
        (1.0986, 0.5, 1, False),  # two classes
        (0.5, 1.0, 1, False),  # nearly all images show that class
    ],
)
def test_one_class_at_the_loss_of_chance_after_the_warm_up_is_a_collapse(
    loss: float, top_share: float, warmup: int, collapsed: bool
) -> None:
    assert has_collapsed(epochs([0.3, 0.3], loss, top_share), warmup, LABELS) is collapsed


def test_chance_knows_how_frequent_the_classes_are() -> None:
    assert chance_loss(LABELS) == pytest.approx(np.log(3))
    assert chance_loss(np.array([0, 0, 0, 1])) == pytest.approx(0.5623, abs=1e-4)


@pytest.mark.parametrize(
    ("accuracies", "rising"),
    [
        ([0.5], False),
        ([0.5, 0.6], True),
        ([0.6, 0.5], False),
        ([0.9, 0.5, 0.6, 0.7], False),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.7], True),
        ([0.1, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6], False),
    ],
)
def test_a_curve_is_still_rising_where_its_end_is_its_best_and_rises(accuracies: list[float], rising: bool) -> None:
    assert is_still_rising(epochs(accuracies), "accuracy") is rising


@pytest.mark.usefixtures("unexported")
def test_a_collapsed_training_is_a_warning_with_the_rate_to_try_and_a_flag(
    make_settings: Make, prepared: DatasetInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = {"train": {"epochs": 4}, "recipe": {"optimizer": {"name": "adamw", "lr": 10.0}}}
    train.run(make_settings(overlay), "vit", 0)
    with (trained("vit", 0) / "history.csv").open() as file:
        assert float(list(csv.DictReader(file))[-1]["val_top_share"]) == 1.0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert "models.vit: the training has collapsed: it predicts one class for 100% of the validation images" in warning
    assert warning.endswith("try a tenth of the learning rate: --set models.vit.recipe.optimizer.lr=1")
    assert json.loads((trained("vit", 0) / "training.json").read_text())["collapsed"]


@pytest.mark.usefixtures("unexported")
def test_a_training_that_learns_has_not_collapsed(
    settings: Settings, prepared: DatasetInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    train.run(settings, "vit", 0)
    assert "collapsed" not in capsys.readouterr().err
    assert not json.loads((trained("vit", 0) / "training.json").read_text())["collapsed"]
