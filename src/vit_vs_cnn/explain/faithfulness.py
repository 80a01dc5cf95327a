"""Deletion and insertion: whether a saliency map orders the places of an image better than chance does."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vit_vs_cnn.evaluation.clusters import mean_interval
from vit_vs_cnn.evaluation.predict import batch_predict
from vit_vs_cnn.explain.samples import SampleExplanations
from vit_vs_cnn.models.trained import TrainedModel

Verdict = Literal["better_than_random", "better_only_deleted", "better_only_inserted", "like_random"]
_CONFIDENCE = 0.95
_BATCH = 128


@dataclass(frozen=True)
class Areas:
    """Areas under the curve of one image: probability of the class over the share of the image that is deleted.

    `deletion` is lower and `insertion` higher, the better a map finds what the prediction depends on. `random` is the
    mean over random orders. It stands beside both, because to insert in one order is to delete in its reverse.
    """

    deletion: float
    insertion: float
    random: float

    @property
    def verdict(self) -> Verdict:
        """Whether the map is better than random orders in this image, in both areas or in one."""
        return _verdict(self.deletion < self.random, self.insertion > self.random)


@dataclass(frozen=True)
class Faithfulness:
    """`Areas` of one kind of map, each float64 (N,) for N images; `groups` are codes of what images share, if known."""

    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]
    random: NDArray[np.float64]
    groups: NDArray[np.int64] | None = None

    def mean_areas(self) -> dict[str, float]:
        """The mean of each area over the images, by its name in tables and in MLflow."""
        areas = {"deletion_auc": self.deletion, "insertion_auc": self.insertion, "random_auc": self.random}
        return {name: float(values.mean()) for name, values in areas.items()}

    def difference_from_random(self, areas: NDArray[np.float64]) -> tuple[float, float, float]:
        """The mean of `areas` minus `random`, paired by image, and its 95 % interval (Student's t), by groups."""
        differences = areas - self.random
        return float(differences.mean()), *mean_interval(differences, self.groups, _CONFIDENCE)

    @property
    def verdict(self) -> Verdict:
        """Whether the maps are better than random orders by more than chance, in both areas or in one.

        Both are necessary for evidence and not sufficient: where objects are in the middle, a map of the middle is
        better than random too.
        """
        _, _, deletion_high = self.difference_from_random(self.deletion)
        _, insertion_low, _ = self.difference_from_random(self.insertion)
        return _verdict(deletion_high < 0, insertion_low > 0)


def _verdict(deleted: bool, inserted: bool) -> Verdict:
    if deleted:
        return "better_than_random" if inserted else "better_only_deleted"
    return "better_only_inserted" if inserted else "like_random"


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
        self._orders, self._shares = len(orders), deleted / cells
        rows, columns = (np.arange(side) * grid // side for side in image.shape[:2])
        ranks = np.argsort(orders, axis=1).reshape(-1, grid, grid)[:, rows[:, None], columns]
        is_deleted = ranks[:, None] < deleted[:, None, None]
        self.variants: NDArray[np.uint8] = np.where(is_deleted[..., None], blank, image).reshape(-1, *image.shape)

    def areas(self, probabilities: NDArray[np.float32]) -> Areas:
        """The areas, from the probability of the class, float32 (V,), in each of the variants."""
        curves = probabilities.reshape(self._orders, -1)
        deletion, insertion, *random = np.asarray(np.trapezoid(curves, self._shares, axis=1)).tolist()
        return Areas(deletion, insertion, float(np.mean(random)))


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
    generator, areas = np.random.default_rng(0), []
    for image, saliency, label in zip(images, maps, classes, strict=True):
        perturbed = PerturbedImage(image, saliency, blank, generator)
        areas.append(perturbed.areas(call(perturbed.variants)[:, label]))
    return Faithfulness(
        deletion=np.array([area.deletion for area in areas]),
        insertion=np.array([area.insertion for area in areas]),
        random=np.array([area.random for area in areas]),
    )


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
