"""Class names along an axis, for three classes as for a thousand."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vit_vs_cnn.report.grid import shortened

MOST_ROWS = 40
_MOST_NAMES = 100
_NAME_LENGTH = 24


def ends_of_order(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes by falling value (NaN last) and the row of each, 0 at the bottom.

    Of more than `MOST_ROWS` classes only the two ends, with one row free between them.
    """
    order = np.argsort(-values, kind="stable")
    if len(order) <= MOST_ROWS:
        return order, np.arange(len(order))[::-1]
    half = MOST_ROWS // 2
    return np.r_[order[:half], order[-half:]], np.r_[MOST_ROWS:half:-1, half - 1 : -1 : -1]


def name_rows(axes: Axes, classes: Sequence[str], shown: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """Write the names of the `shown` classes at their `rows`, and how many are left out where some are."""
    names = {int(row): shortened(classes[each], _NAME_LENGTH) for row, each in zip(rows, shown, strict=True)}
    if len(shown) < len(classes):
        names[MOST_ROWS // 2] = f"({len(classes) - len(shown)} classes between)"
    axes.set_yticks(list(names), list(names.values()))
    axes.set_ylim(-0.6, max(names) + 0.6)
    axes.tick_params(axis="y", length=0)


def matrix_side(classes: int) -> float:
    """Inches that a square matrix of `classes` rows needs for its names to be legible."""
    return float(np.clip(0.45 * classes, 3.2, 12.0))


def name_matrix(axes: Axes, classes: Sequence[str]) -> None:
    """Write the names along both axes of a square matrix; of more than a hundred classes only some."""
    step = -(-len(classes) // _MOST_NAMES)
    places = range(0, len(classes), step)
    names = [shortened(classes[place], _NAME_LENGTH) for place in places]
    size = 10 if len(classes) <= 20 else float(np.clip(420 / len(classes), 5.5, 9))
    upright = len(classes) <= 20 and max(map(len, names)) <= 3
    axes.set_xticks(places, names, rotation=0 if upright else 90, fontsize=size)
    axes.set_yticks(places, names, fontsize=size)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
