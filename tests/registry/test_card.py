"""The model card, from what made-up stages recorded."""

import dataclasses
import re

import numpy as np
import pandas as pd

from factories import CLASSES, cost, evaluation
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.registry.card import write_card
from vit_vs_cnn.training.results import TrainingSummary

LINEAGE = {"mlflow.source.git.commit": "c0ffee" * 7, "git.dirty": "true", "params.digest": "d1" * 16}
SUMMARY = TrainingSummary(
    model="vit",
    timm="vit_tiny_patch16_224",
    parameters=12_345,
    trainable_parameters=12_345,
    epochs=3,
    best_epoch=2,
    val_accuracy=0.9,
    val_loss=0.5,
    seconds=10.0,
    seconds_per_epoch=3.0,
    images_per_second=100.0,
    device="CPU, 2 threads",
    precision="32-true",
    train_images=64,
    batch_size=16,
)


def test_a_card_says_what_was_measured(settings: Settings, prepared: DatasetInfo) -> None:
    made_up = evaluation([2, 5, 8])
    info = prepared.model_copy(update={"classes": CLASSES})
    card = write_card(settings, "vit", info, SUMMARY, made_up, cost(), LINEAGE)
    low, high = 100 * made_up.metrics.accuracy_low, 100 * made_up.metrics.accuracy_high
    assert f"**99.50 %** (95 % interval {low:.2f} to {high:.2f} %)" in card
    assert "12,345 parameters" in card
    assert "| NA | 1.000 | 0.985 | 200 |" in card
    assert "NA taken for cat (3)." in card
    assert "git `c0ffeec0ffee` with uncommitted changes" in card
    assert "one image takes 1.0 ms (0.9 to 1.2 ms by round, p95 2.0 ms)" in card
    assert not re.search(r"\{[{%]|\n\n\n", card)


def test_of_many_classes_the_card_has_the_worst_and_stays_short(settings: Settings, prepared: DatasetInfo) -> None:
    names = tuple(f"a long name of class {n}" for n in range(1000))
    table = pd.DataFrame({"class": names, "precision": 0.5, "recall": range(1000), "f1": 0.5, "images": 10})
    confusion = np.zeros((1000, 1000), np.int64)
    many = dataclasses.replace(evaluation([]), classes=names, per_class=table, confusion=confusion)
    card = write_card(settings, "vit", prepared.model_copy(update={"classes": names}), SUMMARY, many, cost(), LINEAGE)
    assert "class (the 20 with the lowest recall)" in card
    assert "class 19 " in card
    assert "class 20 " not in card
    assert "It confuses no classes" in card
    assert len(card) < 5000
