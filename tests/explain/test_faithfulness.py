from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from factories import faithfulness_of
from vit_vs_cnn.evaluation.faithfulness import Areas, Faithfulness
from vit_vs_cnn.explain.faithfulness import (
    PerturbedImage,
    blank_colour,
    deletion_insertion,
    measure_maps,
)
from vit_vs_cnn.explain.samples import SampleExplanations
from vit_vs_cnn.models.preprocess import Preprocess
from vit_vs_cnn.models.trained import TrainedModel

BLACK = np.zeros(3, np.uint8)
WHITE = np.full((8, 8, 3), 255, np.uint8)


def brightness_of_corner(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (N, 2): class 1 is as likely as the top left quarter of an image is bright."""
    bright = images[:, :4, :4].mean(axis=(1, 2, 3), dtype=np.float32) / 255
    return np.stack([1 - bright, bright], axis=1)


def maps_of_corner(count: int, corner: float) -> NDArray[np.float32]:
    """Maps of 2×2 places that all differ, in which the top left has `corner`."""
    return np.tile(np.array([[corner, 2], [3, 4]], np.float32), (count, 1, 1))


def measured(maps: NDArray[np.float32], label: int = 1) -> Faithfulness:
    images = np.tile(WHITE, (len(maps), 1, 1, 1))
    return deletion_insertion(brightness_of_corner, images, maps, np.full(len(maps), label), BLACK)


@pytest.mark.parametrize(
    ("corner", "deletion", "insertion"),
    [(5, 1 / 8, 7 / 8), (3.5, 3 / 8, 5 / 8), (1, 7 / 8, 1 / 8)],
    ids=["first", "second", "last"],
)
def test_areas_are_those_by_hand(corner: float, deletion: float, insertion: float) -> None:
    # Of four steps, the probability falls from one to zero in the one that deletes the corner.
    faithfulness = measured(maps_of_corner(3, corner))
    np.testing.assert_allclose(faithfulness.deletion, deletion)
    np.testing.assert_allclose(faithfulness.insertion, insertion)


def test_the_areas_are_of_the_class_that_was_asked_for() -> None:
    np.testing.assert_allclose(measured(maps_of_corner(3, 5), label=0).deletion, 7 / 8)


def test_a_map_of_what_decides_is_better_than_random_and_its_opposite_is_not() -> None:
    assert measured(maps_of_corner(20, 5)).verdict == "better_than_random"
    assert measured(maps_of_corner(20, 1)).verdict == "like_random"


@pytest.mark.parametrize(
    ("deletion", "insertion", "verdict"),
    [
        (0.3, 0.7, "better_than_random"),
        (0.3, 0.5, "better_only_deleted"),
        (0.3, 0.4, "better_only_deleted"),
        (0.5, 0.7, "better_only_inserted"),
        (0.5, 0.5, "like_random"),
    ],
)
def test_a_map_has_to_be_better_than_random_both_deleted_and_inserted(
    deletion: float, insertion: float, verdict: str
) -> None:
    assert faithfulness_of(deletion, insertion).verdict == verdict
    assert Areas(deletion, insertion, 0.5).verdict == verdict
    of_one_group = replace(faithfulness_of(deletion, insertion), groups=np.zeros(8, np.int64))
    assert of_one_group.verdict == "like_random"


def test_random_orders_find_the_corner_as_often_early_as_late() -> None:
    faithfulness = measured(maps_of_corner(200, 5))
    assert faithfulness.random.mean() == pytest.approx(0.5, abs=0.05)
    mean, low, high = faithfulness.difference_from_random(faithfulness.deletion)
    assert mean == pytest.approx(1 / 8 - faithfulness.random.mean())
    assert low < mean < high < 0


def test_a_map_without_any_order_is_no_better_than_random() -> None:
    faithfulness = measured(np.zeros((200, 2, 2), np.float32))
    assert faithfulness.verdict == "like_random"
    # By position, the corner would always be the first to go.
    assert faithfulness.deletion.mean() == pytest.approx(0.5, abs=0.1)


def test_a_model_that_does_not_look_is_no_reason_to_trust_a_map() -> None:
    images = np.tile(WHITE, (5, 1, 1, 1))
    faithfulness = deletion_insertion(
        lambda variants: np.full((len(variants), 2), 0.5, np.float32),
        images, maps_of_corner(5, 5), np.ones(5, np.int64), BLACK,
    )  # fmt: skip
    assert faithfulness.verdict == "like_random"


@given(
    height=st.integers(2, 20), width=st.integers(2, 20), grid=st.integers(2, 9), steps=st.integers(2, 16),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_each_order_deletes_the_whole_image_step_by_step(
    height: int, width: int, grid: int, steps: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    image = generator.integers(1, 256, (height, width, 3), dtype=np.uint8)
    saliency = generator.random((grid, grid), dtype=np.float32)
    perturbed = PerturbedImage(image, saliency, BLACK, generator, steps, random_orders=2)
    by_order = perturbed.variants.reshape(4, -1, height, width, 3)
    assert by_order.shape[1] == min(steps, grid**2) + 1
    assert (by_order[:, 0] == image).all()
    assert (by_order[:, -1] == 0).all()
    deleted = (by_order == 0).all(axis=-1)
    assert ((by_order == image) | (by_order == 0)).all()
    assert (deleted[:, 1:] >= deleted[:, :-1]).all()


def test_the_most_salient_places_go_first_and_last_in_reverse() -> None:
    saliency = np.arange(16, dtype=np.float32).reshape(4, 4)
    variants = PerturbedImage(WHITE, saliency, BLACK, np.random.default_rng(0), 4, 1).variants.reshape(3, 5, 8, 8, 3)
    quarter = np.zeros((8, 8), bool)
    quarter[6:] = True
    assert ((variants[0, 1] == 0).all(axis=-1) == quarter).all()
    assert ((variants[1, 3] == 0).all(axis=-1) == ~quarter).all()


def test_what_is_deleted_is_zero_to_the_network() -> None:
    model = TrainedModel(torch.nn.Identity(), Preprocess((0.2, 0.4, 0.6), (0.3, 0.3, 0.3), 4))
    blank = blank_colour(model)
    assert blank.tolist() == [51, 102, 153]
    assert model.preprocess(torch.from_numpy(np.tile(blank, (1, 4, 4, 1)))).abs().max() < 1e-5


def test_kinds_are_those_that_a_network_has() -> None:
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", channels=(8, 8, 16, 16), stem_width=8, num_classes=3).eval()
    model = TrainedModel(network, Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 8))
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    samples = SampleExplanations(
        images=images, pixels=model.preprocess(torch.from_numpy(images)), labels=np.arange(3), predicted=np.arange(3),
        confidence=np.ones(3, np.float32), layer=None,
        cam_predicted=maps_of_corner(3, 5), cam_true=None, attention=None, skipped=(),
    )  # fmt: skip
    faithfulness = measure_maps(model, samples, torch.device("cpu"))
    assert list(faithfulness) == ["gradcam"]
    alone = deletion_insertion(
        lambda variants: model.probabilities(torch.from_numpy(variants)).numpy(),
        images, maps_of_corner(3, 5), np.arange(3), blank_colour(model),
    )  # fmt: skip
    np.testing.assert_allclose(faithfulness["gradcam"].deletion, alone.deletion, atol=1e-6)
