"""Temperature scaling: one number that makes a network as certain as it is right."""

import numpy as np
import torch
from numpy.typing import NDArray

LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature, from 0.05 to 20, by which logits (N, K) are divided so that labels (N,) are most likely.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599, section 4.2. The negative
    log-likelihood is convex in the inverse temperature. One more image of a random class is counted, as in Platt 1999,
    "Probabilistic Outputs for Support Vector Machines", section 2.2: where all images are right, the likelihood of the
    images alone would ask for certainty, and the first mistake on others would cost everything. It is 1 where nothing
    makes the images themselves more likely than 1 does.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp  # what predicts only has no use for them

    scores = logits.astype(np.float64)
    of_truth, of_any = float(scores[np.arange(len(labels)), labels].mean()), float(scores.mean())

    def loss(inverse: float) -> float:
        return float(logsumexp(inverse * scores, axis=1).mean() - inverse * of_truth)

    def loss_with_one_more(inverse: float) -> float:
        return loss(inverse) + inverse * (of_truth - of_any) / (len(labels) + 1)

    bounds = (1 / HIGHEST, 1 / LOWEST)
    found = float(minimize_scalar(loss_with_one_more, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)
    return 1 / found if loss(found) < loss(1.0) else 1.0


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Class probabilities float32 (N, K) of logits (N, K), as a `TrainedModel` of this temperature computes them."""
    scaled: NDArray[np.float32] = (torch.from_numpy(logits) / temperature).softmax(dim=1).numpy()
    return scaled
