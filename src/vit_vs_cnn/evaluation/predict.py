"""Class probabilities for many images, batch by batch."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import UserError


def batch_predict(
    call: Callable[[Tensor], Tensor],
    images: NDArray[np.uint8],
    batch_size: int,
    device: torch.device,
    desc: str | None = None,
) -> NDArray[np.float32]:
    """What `call` says, float32 (N, K), of uint8 images (N, H, W, 3), which may be memory-mapped.

    `call` takes a batch on `device` and returns its probabilities, or logits. `desc` names the progress bar; without it
    there is none. Raises UserError where the memory does not suffice for a batch.
    """
    starts = range(0, len(images), batch_size)
    batches = []
    for start in tqdm(starts, desc=desc, unit="batch", **bar_options()) if desc else starts:
        # A copy, because a tensor must not point into a memory-mapped file that is open for reading.
        batch = torch.from_numpy(np.array(images[start : start + batch_size]))
        try:
            with torch.inference_mode():
                batches.append(call(batch.to(device)).cpu().numpy())
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "not enough memory" not in str(error):
                raise
            raise UserError(
                f"{device}: memory does not suffice for a batch of {len(batch)} images; free some or, in evaluate and "
                "robustness, lower evaluate.batch_size."
            ) from None
    return np.concatenate(batches)
