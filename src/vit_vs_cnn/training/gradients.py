"""The gradients of a batch, summed over parts of it where memory is short."""

import math
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from vit_vs_cnn.config.recipe import Recipe
from vit_vs_cnn.training.setup import is_out_of_memory


def balanced_weights(labels: NDArray[np.int64], classes: int) -> Tensor:
    """Factors float (K,) that give all classes with images the same weight in all, and an image 1.0 in the mean."""
    images = np.bincount(labels, minlength=classes)
    return torch.from_numpy(len(labels) / np.count_nonzero(images) / np.maximum(images, 1)).float()


class Gradients:
    """Computes loss and gradients of a batch for `optimizer`, at most `micro_batch` images at once.

    `network` and `optimizer` are as Fabric set them up. The result does not depend on the size of the parts, but for
    rounding and batch norm. `class_weights`, float (K,), are factors of each class in the loss, None for no such.
    `kept` are tensors that the backward pass leaves as they are: the buffers, where it computes activations again, as
    batch norm's statistics would count the same images twice.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: Any,
        optimizer: Any,
        recipe: Recipe,
        class_weights: Tensor | None,
        key_path: str,
        kept: Iterable[Tensor] = (),
    ) -> None:
        self.fabric, self.network, self.optimizer = fabric, network, optimizer
        self.label_smoothing, self.class_weights, self.key_path = recipe.label_smoothing, class_weights, key_path
        share = math.ceil(recipe.batch_size / fabric.world_size)
        self.micro_batch = min(share, recipe.micro_batch or share)
        self.kept = list(kept)

    def compute(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and mean loss of a batch, its gradients left in the network; parts are halved until memory suffices.

        Targets are labels int64 (N,) or probabilities float (N, K). Raises RuntimeError where one image is too many.
        """
        while True:
            try:
                return self._compute_in_parts(inputs, targets)
            except RuntimeError as error:
                # Several processes must stay in step, and only this one knows of its memory.
                if not is_out_of_memory(error) or self.micro_batch == 1 or self.fabric.world_size > 1:
                    raise
            # Not in the handler: there the error still holds what the failed attempt has allocated.
            torch.cuda.empty_cache()
            self.micro_batch = math.ceil(self.micro_batch / 2)
            tqdm.write(
                f"{self.key_path}: memory does not suffice on {self.fabric.device} for {len(inputs)} images at once; "
                f"gradients are summed over parts of {self.micro_batch}.",
                file=sys.stderr,
            )

    def _summed_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        smoothing = self.label_smoothing
        if self.class_weights is None:
            return functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
        # An image has the weight of its label. PyTorch weights the smoothed rest by the other classes: of an image of
        # a frequent class a rare one would then count more than the label itself.
        weights = self.class_weights[targets] if targets.ndim == 1 else targets @ self.class_weights
        losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        return (weights * losses).sum()

    def _compute_in_parts(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        logits, losses = [], []
        parts = zip(torch.split(inputs, self.micro_batch), torch.split(targets, self.micro_batch), strict=True)
        for part, target in parts:
            output = self.network(part)
            loss = self._summed_loss(output.float(), target) / len(inputs)
            before = [buffer.clone() for buffer in self.kept]
            self.fabric.backward(loss)
            for buffer, value in zip(self.kept, before, strict=True):
                buffer.copy_(value)
            logits.append(output.detach())
            losses.append(loss.detach())
        return torch.cat(logits), torch.stack(losses).sum()
