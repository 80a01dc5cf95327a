"""Validation after an epoch: scores of the network, and batch norm's statistics before it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from vit_vs_cnn.data.loader import ResidentImages

# PyTorch's default. Statistics that forget faster are those of the last few batches, and as noisy as these.
_SLOW_MOMENTUM = 0.1


@dataclass(frozen=True)
class Scores:
    """Scores on the validation images.

    `loss` is the mean negative log-likelihood. Recall and F1 are means over the classes that have images; the precision
    of a class that was never predicted is 0. `top_share` is the share of images with the most frequent prediction.
    """

    loss: float
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    top_share: float


@torch.no_grad()
def validate(
    predict: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], classes: int, fabric: Fabric
) -> Scores:
    """Score the logits float (N, classes) that `predict` gives for each batch of images and labels int64 (N,).

    Each process of `fabric` has its own batches; the scores are those of all of them.
    """
    loss = torch.zeros((), device=fabric.device)
    # Read once at the end: reading at every step would wait for the device at every step.
    counts = torch.zeros(3, classes, dtype=torch.float64, device=fabric.device)
    for images, labels in batches:
        with fabric.autocast():
            logits = predict(images).float()
        loss += functional.cross_entropy(logits, labels, reduction="sum")
        predicted, ones = logits.argmax(dim=1), torch.ones(len(labels), dtype=torch.float64, device=fabric.device)
        counts[0].index_add_(0, labels, ones)
        counts[1].index_add_(0, predicted, ones)
        counts[2].index_add_(0, labels, (predicted == labels).double())
    sums = torch.as_tensor(fabric.all_reduce(torch.cat([loss.double().reshape(1), counts.flatten()]), reduce_op="sum"))
    total_loss, (images_of, predicted_as, correct) = sums[0].item(), sums[1:].reshape(3, classes).cpu()
    images, present = images_of.sum(), images_of > 0
    return Scores(
        loss=total_loss / images.item(),
        accuracy=(correct.sum() / images).item(),
        balanced_accuracy=(correct / images_of)[present].mean().item(),
        # The harmonic mean of precision and recall.
        macro_f1=(2 * correct / (images_of + predicted_as))[present].mean().item(),
        top_share=(predicted_as.max() / images).item(),
    )


def plain_batches(train: ResidentImages, preprocess: Callable[[Tensor], Tensor], seed: int) -> Iterator[Tensor]:
    """A tenth of the training images, 512 to 2,048, as the network validates them; the same in all processes."""
    order, batches = torch.Generator().manual_seed(seed), min(max(len(train) // 2_560, 2), 8)
    for images, _, _ in islice(train.shuffled(256, order), batches):
        yield preprocess(images)


@torch.no_grad()
def recompute_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the statistics of batch norms that forget quickly, in a network in eval mode, by means over `batches`.

    Those that an epoch leaves behind are of its last batches, and of weights that have changed since (Wu & Johnson
    2021, arXiv 2105.07576, section 3). The batches are not read where no batch norm has a momentum above 0.1.
    """
    momenta = {
        module: module.momentum
        for module in network.modules()
        if isinstance(module, _BatchNorm) and (module.momentum or 0.0) > _SLOW_MOMENTUM
    }
    if not momenta:
        return
    for module in momenta:
        module.reset_running_stats()
        module.momentum = None  # the mean over all batches
        module.train()
    for batch in batches:
        network(batch)
    for module, momentum in momenta.items():
        module.momentum = momentum
        module.eval()
