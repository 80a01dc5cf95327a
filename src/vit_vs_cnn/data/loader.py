"""Batches of resident images: gathered by index on the device, no decoding and no worker processes."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vit_vs_cnn.data.dataset import Split


@dataclass(frozen=True)
class Share:
    """The part of the images for process `rank` of several that train together."""

    rank: int = 0
    processes: int = 1

    def of_batch(self, start: int, stop: int) -> slice:
        """Its images of the batch from `start` to `stop`, as many as every other process gets."""
        size = (stop - start) // self.processes
        return slice(start + self.rank * size, start + (self.rank + 1) * size)


class ResidentImages:
    """A split on a device: images uint8 (N, H, W, 3) and labels int64 (N,).

    On the CPU the images stay memory-mapped. On a GPU they are copied there once if they take at most half of the free
    memory; otherwise batches are gathered on the host and copied while the GPU computes the previous one.
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

    def shuffled(
        self,
        batch_size: int,
        generator: torch.Generator,
        share: Share = Share(),
        class_weights: Tensor | None = None,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """One epoch in random order, as images, labels and indices on the device; of each batch only the `share`.

        A last incomplete batch is skipped, with other images each epoch. With `class_weights`, float (K,), images are
        drawn with replacement, each as likely as its class has weight.
        """
        if class_weights is None:
            order = torch.randperm(len(self), generator=generator)
        else:
            weights = class_weights[self._labels].cpu()
            order = torch.multinomial(weights, len(self), replacement=True, generator=generator)
        # The whole order at once: an index that is copied at every step makes the host wait for the device every time.
        order, places = order.to(self._device), order.to(self._images.device)
        for step in range(self.steps(batch_size)):
            batch = share.of_batch(step * batch_size, min((step + 1) * batch_size, len(self)))
            yield self._gather(places[batch]), self._labels[order[batch]], order[batch]

    def in_order(self, batch_size: int, share: Share = Share()) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, in order, in batches that the processes take in turns."""
        for start in range(share.rank * batch_size, len(self), share.processes * batch_size):
            batch = slice(start, start + batch_size)
            yield self._images[batch].to(self._device), self._labels[batch]

    def steps(self, batch_size: int) -> int:
        """The number of batches in a shuffled epoch, at least one."""
        return max(1, len(self) // batch_size)

    def _gather(self, indices: Tensor) -> Tensor:
        if self._images.device == self._device:
            return self._images[indices]
        # Only from pinned memory does a copy leave the host free to gather the next batch meanwhile.
        pinned = torch.empty((len(indices), *self._images.shape[1:]), dtype=torch.uint8, pin_memory=True)
        return torch.index_select(self._images, 0, indices, out=pinned).to(self._device, non_blocking=True)


def _fits(images: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= free // 2
