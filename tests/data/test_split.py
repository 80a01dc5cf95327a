import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import SplitName
from vit_vs_cnn.data.sources.source import Source
from vit_vs_cnn.data.split import assign_splits, carve_by_digest, carved_shares, content_digests, subset_rows

FRACTIONS: dict[SplitName, float] = {"test": 0.2, "val": 0.1}
SEEDS = st.integers(0, 2**31 - 1)
KEYS = st.integers(0, 2**64 - 1)


def source_of(
    labels: list[int],
    splits: list[int],
    missing: tuple[SplitName, ...],
    images: list[bytes] | None = None,
    groups: tuple[str, ...] | None = None,
) -> Source:
    contents = images or [str(position).encode() for position in range(len(labels))]
    return Source(
        description="made up",
        classes=tuple(f"class{label}" for label in range(max(labels) + 1)),
        names=tuple(str(position) for position in range(len(labels))),
        labels=np.array(labels),
        splits=np.array(splits),
        missing=missing,
        read=lambda: enumerate(contents),
        groups=groups,
    )


def data_settings(**changes: object) -> DataSettings:
    return DataSettings.model_validate({"source": "folder", "name": "made-up", "path": str(Path("images")), **changes})


def assigned(source: Source, **changes: object) -> NDArray[np.int64]:
    return assign_splits(source, content_digests(source), data_settings(**changes))


def noise_keys(count: int, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


@given(sizes=st.lists(st.integers(3, 60), min_size=1, max_size=5), seed=SEEDS)
def test_a_class_of_three_images_or_more_is_in_every_split(sizes: list[int], seed: int):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    parts = carve_by_digest(noise_keys(len(labels), seed % 1000), labels, FRACTIONS, seed)
    for label in range(len(sizes)):
        assert set(parts[labels == label].tolist()) == {0, 1, 2}


@given(keys=st.lists(st.tuples(KEYS, st.integers(0, 3)), min_size=1, max_size=30), seed=SEEDS)
def test_every_class_is_in_train_whatever_is_identical_and_identical_images_are_in_one_split(
    keys: list[tuple[int, int]], seed: int
):
    digests, labels = np.array([key for key, _ in keys], np.uint64), np.array([label for _, label in keys])
    parts = carve_by_digest(digests, labels, FRACTIONS, seed)
    assert set(labels[parts == 0]) == set(labels)
    for digest in np.unique(digests):
        assert len(set(parts[digests == digest])) == 1


@given(seed=SEEDS, added=st.integers(1, 150), order=st.randoms(use_true_random=False))
def test_other_images_and_another_order_move_none(seed: int, added: int, order):
    """In either direction: the images of the larger set are the smaller one's and others."""
    keys, labels = noise_keys(600 + added, seed % 100), np.arange(600 + added) % 3
    parts = carve_by_digest(keys, labels, FRACTIONS, seed)
    rows = list(range(600))
    order.shuffle(rows)
    assert (carve_by_digest(keys[rows], labels[rows], FRACTIONS, seed) == parts[rows]).all()


@given(seed=SEEDS, small=st.integers(3, 20), added=st.integers(1, 20))
def test_a_class_with_gaps_moves_none_of_the_other_classes(seed: int, small: int, added: int):
    keys, labels = noise_keys(300 + small + added, seed % 100), np.repeat([0, 1, 1], [300, small, added])
    before = carve_by_digest(keys[: 300 + small], labels[: 300 + small], FRACTIONS, seed)
    after = carve_by_digest(keys, labels, FRACTIONS, seed)
    assert (before[:300] == after[:300]).all()
    # Of its own images those move that no longer have to stand in for a split, and what replaces them.
    assert (before[300:] != after[300 : 300 + small]).sum() <= 4


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.45])
def test_shares_are_as_near_as_chance_brings_them(fraction: float):
    parts = carve_by_digest(noise_keys(20_000), np.arange(20_000) % 10, {"val": fraction}, 3)
    assert parts.mean() == pytest.approx(fraction, abs=4 * math.sqrt(fraction * (1 - fraction) / 20_000))


def test_the_fraction_of_one_split_moves_images_of_that_split_only():
    keys, labels = noise_keys(2000), np.arange(2000) % 2
    few, many = (carve_by_digest(keys, labels, {"test": 0.2, "val": val}, 0) for val in (0.1, 0.3))
    assert ((few == 1) == (many == 1)).all()
    assert ((few == 2) <= (many == 2)).all()


def test_another_seed_gives_another_split():
    keys, labels = noise_keys(200), np.arange(200) % 2
    assert (carve_by_digest(keys, labels, FRACTIONS, 0) != carve_by_digest(keys, labels, FRACTIONS, 1)).any()


def test_only_what_is_missing_is_carved_and_only_from_train():
    source = source_of([0, 1] * 30, [0] * 40 + [2] * 20, missing=("val",))
    splits = assigned(source, val_fraction=0.25)
    assert (splits[40:] == 2).all()
    assert set(splits[:40].tolist()) == {0, 1}
    val = int((splits == 1).sum())
    assert carved_shares(source, splits, data_settings(val_fraction=0.25)) == (
        "Splits are carved by the digests of their images, so shares are near what was asked for: "
        f"val has {val} of 40 images, {val / 40:.1%} for 25.0%.",
    )


def test_a_source_with_all_splits_keeps_them():
    source = source_of([0, 1] * 6, [0, 1, 2] * 4, missing=())
    assert assigned(source).tolist() == [0, 1, 2] * 4
    assert carved_shares(source, source.splits, data_settings()) == ()


def test_a_class_too_small_to_be_split_is_named():
    source = source_of([0] * 9 + [1] * 2, [0] * 11, missing=("test", "val"))
    with pytest.raises(UserError, match=r"fewer than the 3 training images .*class1: 2"):
        assigned(source)


def test_a_digest_is_of_the_file_or_the_pixels():
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    one = content_digests(source_of([0, 0, 0], [0] * 3, (), [b"one", b"other", b"one"]))
    assert one[0] == one[2] != one[1]
    arrays = source_of([0, 0], [0] * 2, (), [pixels, pixels.transpose(1, 0, 2)])  # type: ignore[list-item]
    assert len(set(content_digests(arrays).tolist())) == 2


def test_a_source_that_lost_images_is_one_sentence():
    with pytest.raises(UserError, match="changed while it was read"):
        content_digests(source_of([0, 0], [0, 0], (), [b"one"]))


@settings(max_examples=30)
@given(st.lists(st.integers(0, 40), min_size=150, max_size=300), SEEDS, st.integers(0, 100))
def test_no_split_has_a_part_of_a_group_and_more_images_move_none(people: list[int], seed: int, added: int):
    people = [*range(41), *people, *[50 + number % 7 for number in range(added)]]
    labels, groups = [position % 2 for position in range(len(people))], tuple(f"person {one}" for one in people)
    splits = assigned(source_of(labels, [0] * len(people), ("test", "val"), groups=groups), split_seed=seed)
    for person in set(people):
        assert len({int(split) for split, one in zip(splits, people, strict=True) if one == person}) == 1
    assert set(splits.tolist()) == {0, 1, 2}
    kept = len(people) - added
    fewer = source_of(labels[:kept], [0] * kept, ("test", "val"), groups=groups[:kept])
    before = assigned(fewer, split_seed=seed)
    # Groups with both classes fill every split by chance, or else by one group that is moved.
    assert (before != splits[:kept]).sum() <= 4 * max(np.bincount(people))


def test_fewer_groups_than_splits_cannot_be_split():
    source = source_of([0, 1] * 10, [0] * 20, ("test", "val"), groups=("one", "other") * 10)
    with pytest.raises(UserError, match=r"data\.groups: .* of 2 groups, and 3 at least are needed"):
        assigned(source)


def subset_of(source: Source, fraction: float, splits: NDArray[np.int64], **changes: object) -> list[int]:
    settings_ = data_settings(train_fraction=fraction, **changes)
    return subset_rows(source, content_digests(source), splits, settings_).tolist()


@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 10), st.integers(1, 10)), min_size=1, max_size=4),
    fractions=st.lists(st.floats(0.05, 1.0), min_size=2, max_size=2).map(sorted),
    per_group=st.sampled_from([None, 1, 4]),
    seed=SEEDS,
)
def test_a_smaller_subset_is_within_a_larger_one_and_has_its_share_of_each_class(
    sizes: list[tuple[int, int, int]], fractions: list[float], per_group: int | None, seed: int
):
    labels = [label for label, counts in enumerate(sizes) for _ in range(sum(counts))]
    splits = [split for counts in sizes for split, count in enumerate(counts) for _ in range(count)]
    groups = None if per_group is None else tuple(str(position // per_group) for position in range(len(labels)))
    source, assignment = source_of(labels, splits, (), groups=groups), np.array(splits)
    if fractions[0] * (assignment == 0).sum() < len(sizes):
        with pytest.raises(UserError, match=r"data\.train_fraction: .* is fewer than the \d classes: set it to "):
            subset_of(source, fractions[0], assignment, split_seed=seed)
        return
    smaller, larger = (subset_of(source, fraction, assignment, split_seed=seed) for fraction in fractions)
    assert set(smaller) <= set(larger)
    for label, counts in enumerate(sizes):
        for split, count in enumerate(counts):
            kept = sum(labels[row] == label and splits[row] == split for row in smaller)
            assert kept == (count if split == 2 else max(1, round(count * fractions[0])))


def test_other_images_change_the_subset_only_by_their_number():
    labels, splits = [0] * 100 + [1] * 100, np.zeros(200, np.int64)
    contents = [f"image {position}".encode() for position in range(200)]
    kept = subset_of(source_of(labels, splits.tolist(), (), contents), 0.3, splits)
    shuffled = np.random.default_rng(0).permutation(200)
    other = source_of([labels[row] for row in shuffled], splits.tolist(), (), [contents[row] for row in shuffled])
    assert {contents[row] for row in kept} == {contents[shuffled[row]] for row in subset_of(other, 0.3, splits)}
    assert kept != subset_of(source_of(labels, splits.tolist(), (), contents), 0.3, splits, split_seed=1)


def test_of_groups_whole_ones_are_kept_as_far_as_the_share_allows():
    groups, splits = tuple(str(position // 10) for position in range(200)), np.zeros(200, np.int64)
    source = source_of([0] * 200, splits.tolist(), (), groups=groups)
    kept = subset_of(source, 0.25, splits)
    assert len({groups[row] for row in kept}) == 5
