"""The test images that an explanation shows, and what a contestant predicts and attends to on them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vit_vs_cnn.core.errors import NotApplicableError, UserError
from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.evaluation.results import Predictions
from vit_vs_cnn.explain.attention import Attention, explain_attention
from vit_vs_cnn.explain.gradcam import cam_layer, grad_cam
from vit_vs_cnn.explain.layers import MapLayer
from vit_vs_cnn.models.trained import TrainedModel


@dataclass(frozen=True)
class SampleExplanations:
    """N test images with the predictions and saliency maps of one contestant.

    `images` uint8 (N, H, W, 3) are what the network sees of them, `pixels` float32 (N, 3, H', W') its input; `labels`,
    `predicted` int64 (N,); `confidence` float32 (N,) of the prediction. `cam_predicted` and, if asked for, `cam_true`
    are Grad-CAM of `layer` for that class, float32 (N, G, G).
    What the network cannot give is None, and `skipped` has a sentence about it. `group_codes` int64 (N,) say which
    images share a group, None where that is not known.
    """

    images: NDArray[np.uint8]
    pixels: torch.Tensor
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    layer: MapLayer | None
    cam_predicted: NDArray[np.float32] | None
    cam_true: NDArray[np.float32] | None
    attention: Attention | None
    skipped: tuple[str, ...]
    group_codes: NDArray[np.int64] | None = None


def shared_images(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Positions (int64) of `count` images (all, if there are fewer), spread evenly over the classes.

    They depend on the data and `seed` only, never on a model: every contestant is shown on the same images.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    class_order = generator.permutation(labels.max() + 1)
    # The rank of each image within its class: the first of every class are taken before the second of any.
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    return np.lexsort((class_order[labels], rank))[:count]


def confident_mistakes(predictions: Predictions, count: int) -> NDArray[np.int64]:
    """Positions (int64) of at most `count` misclassified images, the most confident first."""
    wrong = np.flatnonzero(~predictions.correct)
    confidence = predictions.probabilities[wrong, predictions.predicted[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:count]


def explain_samples(
    model: TrainedModel,
    test: Split,
    predictions: Predictions,
    positions: NDArray[np.int64],
    *,
    true_class: bool = False,
) -> SampleExplanations:
    """Explain `model`, on the CPU and in evaluation mode, on the images of `test` at one or more `positions`.

    `true_class` asks for Grad-CAM for the true class too. Raises UserError where `predictions` are of other images.
    """
    if predictions.names != test.names:
        raise UserError("the evaluation is of other test images than data/prepared/test has; run `dvc repro`.")
    images, labels, predicted = test.images[positions], test.labels[positions], predictions.predicted[positions]
    pixels: torch.Tensor = model.preprocess(torch.from_numpy(images))
    layer = cam_predicted = cam_true = attention = None
    skipped = []
    try:
        layer = cam_layer(model.network, pixels)
        cam_predicted = grad_cam(model.network, pixels, predicted.tolist(), layer)
        cam_true = grad_cam(model.network, pixels, labels.tolist(), layer) if true_class else None
    except NotApplicableError as error:
        skipped.append(str(error))
    try:
        attention = explain_attention(model.network, pixels)
    except NotApplicableError as error:
        skipped.append(str(error))
    return SampleExplanations(
        images=model.preprocess.visible(images),
        pixels=pixels,
        labels=labels,
        predicted=predicted,
        confidence=predictions.probabilities[positions, predicted],
        layer=layer,
        cam_predicted=cam_predicted,
        cam_true=cam_true,
        attention=attention,
        skipped=tuple(skipped),
        group_codes=None if (codes := test.group_codes) is None else codes[positions],
    )


def explain_mistakes(
    model: TrainedModel, test: Split, predictions: Predictions, count: int
) -> SampleExplanations | None:
    """Explain at most `count` misclassified images, the most confident first; None where there is none."""
    positions = confident_mistakes(predictions, count)
    return explain_samples(model, test, predictions, positions, true_class=True) if len(positions) else None
