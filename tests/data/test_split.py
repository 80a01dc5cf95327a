from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import SplitName
from vit_vs_cnn.data.sources.source import Source
from vit_vs_cnn.data.split import assign_splits, carve

CLASS_SIZES = st.lists(st.integers(3, 60), min_size=1, max_size=6)
FRACTIONS = st.lists(st.floats(0.01, 0.49), min_size=1, max_size=2)
SEEDS = st.integers(0, 2**31 - 1)


def source_of(labels: list[int], splits: list[int], missing: tuple[SplitName, ...]) -> Source:
    return Source(
        description="made up",
        classes=tuple(f"class{label}" for label in range(max(labels) + 1)),
        names=tuple(str(position) for position in range(len(labels))),
        labels=np.array(labels),
        splits=np.array(splits),
        missing=missing,
        read=lambda: iter(()),
    )


def data_settings(**changes: object) -> DataSettings:
    return DataSettings.model_validate({"source": "folder", "name": "made-up", "path": str(Path("images")), **changes})


@settings(max_examples=60, deadline=None)
@given(sizes=CLASS_SIZES, fractions=FRACTIONS, seed=SEEDS, shuffle=st.randoms(use_true_random=False))
def test_each_class_is_carved_in_proportion_and_is_in_every_part(sizes, fractions, seed, shuffle):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    shuffle.shuffle(labels)
    parts = carve(np.array(labels), fractions, seed)
    for label, size in enumerate(sizes):
        counts = np.bincount(parts[np.array(labels) == label], minlength=len(fractions) + 1)
        assert counts.min() >= 1
        left = size
        for part, fraction in enumerate(fractions, start=1):
            assert abs(counts[part] - left * fraction) <= 1
            left -= counts[part]


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_a_seed_gives_one_split_and_another_seed_another(seed):
    labels = np.repeat([0, 1, 2], 40)
    assert (carve(labels, [0.2, 0.1], seed) == carve(labels, [0.2, 0.1], seed)).all()
    assert (carve(labels, [0.2, 0.1], seed) != carve(labels, [0.2, 0.1], seed + 1)).any()


def test_a_class_is_carved_the_same_whatever_the_other_classes_are():
    alone = carve(np.zeros(50, np.int64), [0.2], 7)
    together = carve(np.array([0] * 50 + [1] * 30), [0.2], 7)
    assert (together[:50] == alone).all()


def test_only_what_is_missing_is_carved_and_only_from_train():
    labels = [0, 1] * 30
    splits = [0] * 40 + [2] * 20
    assigned = assign_splits(source_of(labels, splits, missing=("val",)), data_settings(val_fraction=0.25))
    assert (assigned[40:] == 2).all()
    assert np.bincount(assigned[:40], minlength=3).tolist() == [30, 10, 0]


def test_a_source_with_all_splits_keeps_them():
    splits = [0, 1, 2] * 4
    assert assign_splits(source_of([0, 1] * 6, splits, missing=()), data_settings()).tolist() == splits


def test_a_class_too_small_to_be_split_is_named():
    source = source_of([0] * 9 + [1] * 2, [0] * 11, missing=("test", "val"))
    with pytest.raises(UserError, match=r"fewer than the 3 training images .*class1: 2"):
        assign_splits(source, data_settings())
