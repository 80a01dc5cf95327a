"""Batches of resident images: gathered by index on the device, no decoding and no worker processes."""

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from vit_vs_cnn.data.prepared import Split


class ResidentImages:
    """A split on a device: images uint8 (N, H, W, 3) and labels int64 (N,).

    On the CPU the images stay memory-mapped; on a GPU they are copied there once if they take at most half of
    the free memory, and are gathered on the host otherwise.
    """

    def __init__(self, split: Split, device: torch.device) -> None:
        with warnings.catch_warnings():
            # Read-only on purpose: nothing writes into the prepared data.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            images = torch.from_numpy(split.images)
        self._device = device
        self._images = images.to(device) if _fits(images, device) else images
        self._labels = torch.from_numpy(split.labels).to(device)

    def __len__(self) -> int:
        return len(self._labels)

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels at `indices` (int64, on the CPU), on the device."""
        images = self._images[indices.to(self._images.device)].to(self._device, non_blocking=True)
        return images, self._labels[indices.to(self._device)]

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order; a last incomplete batch is left out, other images each epoch."""
        order = torch.randperm(len(self), generator=generator)
        for step in range(self.steps(batch_size)):
            yield self.gather(order[step * batch_size : (step + 1) * batch_size])

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, in order."""
        for start in range(0, len(self), batch_size):
            yield self.gather(torch.arange(start, min(start + batch_size, len(self))))

    def steps(self, batch_size: int) -> int:
        """Batches in a shuffled epoch: one at least."""
        return max(1, len(self) // batch_size)


def _fits(images: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= free // 2
