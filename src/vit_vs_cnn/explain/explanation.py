"""Everything that explains one contestant, ready to be drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vit_vs_cnn.core.errors import NotApplicableError, UserError
from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.evaluation.results import Predictions
from vit_vs_cnn.explain.attention import Attention, explain_attention
from vit_vs_cnn.explain.features import Filters, StageMaps, feature_maps, first_filters, position_similarity
from vit_vs_cnn.explain.gradcam import CamLayer, cam_layer, grad_cam
from vit_vs_cnn.models.trained import TrainedModel

Part = TypeVar("Part")


@dataclass(frozen=True)
class SampleExplanations:
    """N test images, what the contestant says of them and where it looks.

    `images` uint8 (N, H, W, 3); `labels` and `predicted` int64 (N,); `confidence` float32 (N,) of the prediction.
    `cam_predicted` and, for mistakes only, `cam_true` are Grad-CAM for that class, float32 (N, S, S). What the
    network cannot give is None.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    cam_predicted: NDArray[np.float32] | None
    cam_true: NDArray[np.float32] | None
    attention: Attention | None


@dataclass(frozen=True)
class Explanation:
    """What the contestant shows of itself, at `input_size` pixels; `skipped` says in sentences what it cannot show.

    `shared` are the images on which all contestants are shown; `mistakes` are its own, None where it made none.
    """

    shared: SampleExplanations
    mistakes: SampleExplanations | None
    input_size: int
    layer: CamLayer | None
    similarity: NDArray[np.float32] | None
    filters: Filters | None
    stages: Sequence[StageMaps] | None
    skipped: tuple[str, ...]


def explain_model(
    model: TrainedModel,
    test: Split,
    predictions: Predictions,
    shared: NDArray[np.int64],
    mistakes: NDArray[np.int64],
) -> Explanation:
    """Explain `model`, on the CPU and in evaluation mode, on the images of `test` at these positions.

    Raises UserError where `predictions` are of other images than `test`.
    """
    if predictions.names != test.names:
        raise UserError("The evaluation is of other test images than data/prepared/test holds; run `dvc repro`.")
    network = model.network
    pixels = _pixels(model, test, shared)
    skipped: list[str] = []

    def attempt(part: Callable[[], Part]) -> Part | None:
        try:
            return part()
        except NotApplicableError as reason:
            skipped.append(str(reason))
            return None

    layer = attempt(lambda: cam_layer(network, pixels))
    attention = attempt(lambda: explain_attention(network, pixels))
    similarity = attempt(lambda: position_similarity(network))
    filters = attempt(lambda: first_filters(network))
    stages = attempt(lambda: feature_maps(network, pixels[:1]))
    looks_at_mistakes = None
    if len(mistakes):
        wrong = _pixels(model, test, mistakes)
        attention_there = explain_attention(network, wrong) if attention else None
        looks_at_mistakes = _looks(model, test, predictions, mistakes, layer, attention_there, truth=True)
    else:
        skipped.append(f"Mistakes are left out: it made none on the {len(test)} test images.")
    return Explanation(
        shared=_looks(model, test, predictions, shared, layer, attention, truth=False),
        mistakes=looks_at_mistakes,
        input_size=model.preprocess.input_size,
        layer=layer,
        similarity=similarity,
        filters=filters,
        stages=stages,
        skipped=tuple(skipped),
    )


def _looks(
    model: TrainedModel,
    test: Split,
    predictions: Predictions,
    positions: NDArray[np.int64],
    layer: CamLayer | None,
    attention: Attention | None,
    truth: bool,
) -> SampleExplanations:
    pixels = _pixels(model, test, positions)
    labels, predicted = test.labels[positions], predictions.predicted[positions]
    return SampleExplanations(
        images=test.images[positions],
        labels=labels,
        predicted=predicted,
        confidence=predictions.probabilities[positions, predicted],
        cam_predicted=grad_cam(model.network, pixels, predicted.tolist(), layer) if layer else None,
        cam_true=grad_cam(model.network, pixels, labels.tolist(), layer) if layer and truth else None,
        attention=attention,
    )


def _pixels(model: TrainedModel, test: Split, positions: NDArray[np.int64]) -> Tensor:
    pixels: Tensor = model.preprocess(torch.from_numpy(test.images[positions]))
    return pixels
