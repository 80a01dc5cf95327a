"""By which rule a version that is measured again is the same."""

from dataclasses import replace

import numpy as np
import pytest

from vit_vs_cnn.evaluation.results import Predictions
from vit_vs_cnn.orchestration.verify import compare_predictions, why_by_chance

CPU = {"device": "CPU, 2 threads", "precision": "32-true"}
GPU = {"device": "NVIDIA H200", "precision": "bf16-mixed"}


def predictions(images: int, wrong: range = range(0)) -> Predictions:
    """Predictions of two classes that are wrong on the images at these positions."""
    labels = np.arange(images) % 2
    predicted = labels.copy()
    predicted[wrong] = 1 - predicted[wrong]
    probabilities = np.where(np.eye(2)[predicted] == 1, 0.9, 0.1).astype(np.float32)
    return Predictions(tuple(map(str, range(images))), labels, predicted, probabilities)


def differing(recorded: Predictions, found: Predictions, chance: str | None = None) -> set[str]:
    values = compare_predictions("trained again", recorded, found, chance)
    return {value.what.removeprefix("trained again: ") for value in values if not value.same}


def test_what_has_to_be_the_same_is_so_to_the_last_prediction() -> None:
    recorded = predictions(1000, range(100))
    assert differing(recorded, recorded) == set()
    assert differing(recorded, predictions(1000, range(1, 101))) == {"predicted classes", "probabilities"}
    assert differing(recorded, predictions(1000, range(99))) == {"accuracy", "predicted classes", "probabilities"}
    rounded = replace(recorded, probabilities=recorded.probabilities + np.float32(1e-6))
    assert differing(recorded, rounded) == set()
    changed = replace(recorded, probabilities=recorded.probabilities + np.float32(1e-4))
    assert differing(recorded, changed) == {"probabilities"}


@pytest.mark.parametrize(
    ("images", "before", "now", "same"),
    [
        (1000, range(100), range(40, 145), True),  # half a point less
        (10_000, range(1000), range(1100), True),  # a point, though that is more than chance
        (10_000, range(1000), range(1101), False),
        (200, range(20), range(10, 33), True),  # 1.5 points, which is chance in 200 images
        (200, range(20), range(35), False),
        (200, range(20, 40), range(20), True),  # other images, as many of them
        (200, range(35), range(20), False),  # a model that is better is another one too
    ],
)
def test_what_ends_by_chance_is_the_same_within_a_point_or_the_paired_interval(
    images: int, before: range, now: range, same: bool
) -> None:
    found = differing(predictions(images, before), predictions(images, now), "NVIDIA H200 without train.deterministic")
    assert found == (set() if same else {"accuracy", "difference"})


def test_the_rule_and_its_reason_are_shown() -> None:
    recorded, found = predictions(1000, range(100)), predictions(1000, range(40, 145))
    *_, difference = compare_predictions("trained again", recorded, found, "a GPU without train.deterministic")
    assert difference.recorded == ("at most 1 point, or 0 within the 95 % interval (a GPU without train.deterministic)")
    assert difference.found == "−0.5 points (−2.3 to +1.3)"


def test_other_images_are_not_compared() -> None:
    recorded = predictions(10)
    assert differing(recorded, predictions(9), "a GPU") == {"test images"}


@pytest.mark.parametrize(
    ("before", "now", "deterministic", "reason"),
    [
        (CPU, CPU, False, None),
        (GPU, GPU, True, None),
        (GPU, GPU, False, "NVIDIA H200 without train.deterministic"),
        (GPU, CPU, True, "device NVIDIA H200, now CPU, 2 threads"),
        (CPU, {**CPU, "device": "CPU, 1 thread"}, False, "device CPU, 2 threads, now CPU, 1 thread"),
        (CPU, {**CPU, "precision": "bf16-mixed"}, False, "precision 32-true, now bf16-mixed"),
        ({"device": "", "precision": ""}, CPU, False, None),  # of a version that did not record them
    ],
)
def test_a_training_ends_by_chance_where_it_was_not_deterministic_or_runs_elsewhere(
    before: dict[str, str], now: dict[str, str], deterministic: bool, reason: str | None
) -> None:
    assert why_by_chance(before, now, deterministic=deterministic) == reason
