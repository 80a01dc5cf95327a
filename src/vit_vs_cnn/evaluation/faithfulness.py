"""How well saliency maps order the places of an image, by what deletion and insertion measured."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.evaluation.clusters import mean_interval

Verdict = Literal["better_than_random", "better_only_deleted", "better_only_inserted", "like_random"]
# A mean and its 95 % interval (Student's t), by groups where they are known; of one group alone it has no ends.
Mean = tuple[float, float, float]
_CONFIDENCE = 0.95


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
    """What one kind of map is worth on N images: the probability of the class while an image is deleted.

    `curves` (3, N, S) are over the `shares` (S,) that are deleted, float64: in the order of the map, in its reverse,
    which read backwards is to insert in its order, and the mean of random orders. `groups` (N,) are codes of what
    images share, if known.
    """

    shares: NDArray[np.float64]
    curves: NDArray[np.float64]
    groups: NDArray[np.int64] | None = None

    @property
    def deletion(self) -> NDArray[np.float64]:
        """The area under each image's curve in the order of the map, (N,)."""
        return self._areas(0)

    @property
    def insertion(self) -> NDArray[np.float64]:
        """The area under each image's curve in the reverse order, (N,)."""
        return self._areas(1)

    @property
    def random(self) -> NDArray[np.float64]:
        """The area under each image's curve in random orders, (N,)."""
        return self._areas(2)

    def _areas(self, order: int) -> NDArray[np.float64]:
        areas: NDArray[np.float64] = np.trapezoid(self.curves[order], self.shares, axis=1)
        return areas

    def mean_areas(self) -> dict[str, float]:
        """The mean of each area over the images, by its name in tables and in MLflow."""
        areas = {"deletion_auc": self.deletion, "insertion_auc": self.insertion, "random_auc": self.random}
        return {name: float(values.mean()) for name, values in areas.items()}

    def difference_from_random(self, areas: NDArray[np.float64]) -> Mean:
        """The mean of `areas` minus `random`, paired by image."""
        return self._mean(areas - self.random)

    def difference_from(self, other: "Faithfulness") -> tuple[Mean, Mean]:
        """How much more deletion, and insertion, differ from random orders than those of `other`, paired by image."""
        deletion = (self.deletion - self.random) - (other.deletion - other.random)
        insertion = (self.insertion - self.random) - (other.insertion - other.random)
        return self._mean(deletion), self._mean(insertion)

    def _mean(self, differences: NDArray[np.float64]) -> Mean:
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
