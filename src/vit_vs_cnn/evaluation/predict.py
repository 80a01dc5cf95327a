"""A trained model's probabilities for many images."""

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.models.trained import TrainedModel


def predict(
    trained: TrainedModel, images: NDArray[np.uint8], batch_size: int, device: torch.device
) -> NDArray[np.float32]:
    """Class probabilities float32 (N, K) of uint8 images (N, H, W, 3), by a model that is on `device`.

    The softmax is taken in float32 whatever the network computes in.
    """
    batches = range(0, len(images), batch_size)
    answers = [
        predict_batch(trained, images[start : start + batch_size], device)
        for start in tqdm(batches, desc="predict", unit="batch", **bar_options())
    ]
    return np.concatenate(answers)


def predict_batch(trained: TrainedModel, batch: NDArray[np.uint8], device: torch.device) -> NDArray[np.float32]:
    """One batch from the host's memory through the model and back: probabilities float32 (N, K).

    Raises UserError where the device's memory does not suffice for it.
    """
    try:
        # A copy, because a tensor must not point into a memory-mapped file that is open for reading.
        on_device = torch.from_numpy(np.array(batch)).to(device)
        probabilities: NDArray[np.float32] = trained.probabilities(on_device).cpu().numpy()
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "not enough memory" not in str(error):
            raise
        raise UserError(
            f"evaluate.batch_size: memory does not suffice on {device} for batches of {len(batch)}; lower it."
        ) from None
    return probabilities
