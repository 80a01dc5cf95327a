"""Deletion and insertion: whether a saliency map orders the places of an image better than chance does."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from vit_vs_cnn.evaluation.faithfulness import Areas, Faithfulness
from vit_vs_cnn.evaluation.predict import batch_predict
from vit_vs_cnn.explain.samples import SampleExplanations
from vit_vs_cnn.models.trained import TrainedModel

_BATCH = 128


class PerturbedImage:
    """An image, uint8 (H, W, 3), with ever more of it deleted: in the order of a map, its reverse, random orders.

    The cells of the grid of `saliency`, float32 (G, G), are deleted in at most `steps` steps, since the map says
    nothing finer; random orders are of the same cells. A deleted cell gets the colour `blank`, uint8 (3,).
    `variants`, uint8 (V, H, W, 3), are what the model has to be called with.
    """

    def __init__(
        self,
        image: NDArray[np.uint8],
        saliency: NDArray[np.float32],
        blank: NDArray[np.uint8],
        generator: np.random.Generator,
        steps: int = 16,
        random_orders: int = 4,
    ) -> None:
        grid, cells = len(saliency), saliency.size
        # Cells of equal saliency, such as all those without evidence, have no order: chance decides, not their place.
        falling = np.lexsort((generator.random(cells), -saliency.ravel()))
        orders = [falling, falling[::-1], *(generator.permutation(cells) for _ in range(random_orders))]
        deleted = np.linspace(0, cells, min(steps, cells) + 1).round()
        self._orders = len(orders)
        self.shares: NDArray[np.float64] = deleted / cells
        rows, columns = (np.arange(side) * grid // side for side in image.shape[:2])
        ranks = np.argsort(orders, axis=1).reshape(-1, grid, grid)[:, rows[:, None], columns]
        is_deleted = ranks[:, None] < deleted[:, None, None]
        self.variants: NDArray[np.uint8] = np.where(is_deleted[..., None], blank, image).reshape(-1, *image.shape)

    def curves(self, probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
        """The probability of the class in the order of the map, its reverse and the mean of random ones, (3, S).

        `probabilities`, float32 (V,), are those in each of the variants; S are the `shares` that are deleted.
        """
        deletion, insertion, *random = probabilities.reshape(self._orders, -1)
        return np.array([deletion, insertion, np.mean(random, axis=0)], np.float64)

    def areas(self, probabilities: NDArray[np.float32]) -> Areas:
        """The areas under these curves."""
        return Areas(*np.asarray(np.trapezoid(self.curves(probabilities), self.shares, axis=1)).tolist())


def blank_colour(model: TrainedModel) -> NDArray[np.uint8]:
    """The colour uint8 (3,) that `model` is normalised by: the mean of its training data, zero to the network.

    A blurred image would keep what the network still recognises.
    """
    colour: NDArray[np.uint8] = model.preprocess.mean.flatten().round().byte().cpu().numpy()
    return colour


def deletion_insertion(
    call: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    images: NDArray[np.uint8],
    maps: NDArray[np.float32],
    classes: NDArray[np.int64],
    blank: NDArray[np.uint8],
) -> Faithfulness:
    """Measure `maps`, float32 (N, G, G), of `images`, uint8 (N, H, W, 3), for `classes`, int64 (N,).

    Petsiuk et al. 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models" (arXiv 1806.07421).
    `call` gives class probabilities float32 (V, K) of uint8 images (V, H, W, 3); random orders are always the same.
    """
    generator, curves = np.random.default_rng(0), []
    for image, saliency, label in zip(images, maps, classes, strict=True):
        perturbed = PerturbedImage(image, saliency, blank, generator)
        curves.append(perturbed.curves(call(perturbed.variants)[:, label]))
    return Faithfulness(perturbed.shares, np.stack(curves, axis=1))


def measure_maps(model: TrainedModel, samples: SampleExplanations, device: torch.device) -> dict[str, Faithfulness]:
    """Measure the maps that `samples` has for the predicted classes, by kind: `gradcam`, `rollout`."""
    maps = {"gradcam": samples.cam_predicted, "rollout": samples.attention.rollout if samples.attention else None}
    blank, moved = blank_colour(model), deepcopy(model).to(device)
    moved.preprocess.crop = 1.0  # the images of samples are cut already

    def call(variants: NDArray[np.uint8]) -> NDArray[np.float32]:
        return batch_predict(moved.probabilities, variants, _BATCH, device)

    return {
        kind: replace(
            deletion_insertion(call, samples.images, saliency, samples.predicted, blank), groups=samples.group_codes
        )
        for kind, saliency in maps.items()
        if saliency is not None
    }
