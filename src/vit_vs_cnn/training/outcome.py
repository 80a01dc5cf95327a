"""How a training ended: collapsed, or with a validation curve that was still rising."""

from collections.abc import Sequence
from statistics import linear_regression

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.training.results import Epoch, best_epoch, selection_score

# A network that has learned anything predicts a second class more often than this, or has a lower loss.
_NEARLY_ALL = 0.98
_AT_CHANCE = 0.95


def chance_loss(labels: NDArray[np.int64]) -> float:
    """The loss of a prediction that knows how frequent each class is, and nothing of the image: the labels' entropy."""
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(shares * np.log(shares)).sum())


def has_collapsed(history: Sequence[Epoch], warmup_epochs: int, labels: NDArray[np.int64]) -> bool:
    """Whether the network of the last epoch predicts one class for nearly all validation images, at a loss of chance.

    `labels` are those of the validation images. In the warm-up nothing can be said yet.
    """
    last = history[-1]
    useless = last.val_top_share >= _NEARLY_ALL and last.val_loss >= _AT_CHANCE * chance_loss(labels)
    return useless and last.epoch > warmup_epochs


def is_still_rising(history: Sequence[Epoch], select_by: str) -> bool:
    """Whether the last epoch is the best, and the selection score rises over the last quarter of the epochs."""
    quarter = history[-max(2, len(history) // 4) :]
    if len(quarter) < 2 or best_epoch(history, select_by) is not history[-1]:
        return False
    scores = [selection_score(row, select_by) for row in quarter]
    return linear_regression([row.epoch for row in quarter], scores).slope > 0
