"""Changes of the test images that a model may meet in use, each at rising severities, the same for every contestant.

They are C-like: in the manner of ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), by torchvision's own
functions and at severities of this project, so their results are not those of the published benchmarks. Patches are
dropped and shuffled as in Naseer et al. 2021, "Intriguing Properties of Vision Transformers", arXiv 2105.10497.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vit_vs_cnn.core.start_up import without_compiler

with without_compiler():
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

CLEAN = "clean"
MOST_SEVERE = 5
# Cells along a side of the grid whose cells are dropped.
_DROP_GRID = 8
# How far around an image its reflection has to reach: for the largest rotation and shear, and the largest translation.
_REFLECTED, _REFLECTED_PIXELS = 1 / 3, 4
_CPU = torch.device("cpu")
_BILINEAR = InterpolationMode.BILINEAR


@dataclass(frozen=True)
class Batch:
    """Images uint8 (N, 3, S, S), a seed for each, and the colour uint8 (3,) of what is deleted.

    What chance decides of an image depends on its seed alone, so batches of any size are changed alike. `grey` says
    that the three channels are one.
    """

    images: Tensor
    seeds: Sequence[int]
    blank: Tensor
    grey: bool = False


Change = Callable[[Batch, float], Tensor]


@dataclass(frozen=True)
class Corruption:
    """A change of images; `levels` are its severities from 1 on, which `label` puts into words.

    `is_corruption` is false of what no image meets in use.
    """

    name: str
    levels: tuple[float, ...]
    label: str
    change: Change
    is_corruption: bool = True
    needs_colour: bool = False

    @property
    def title(self) -> str:
        """The name for people."""
        return self.name.replace("_", " ")

    @property
    def labels(self) -> list[str]:
        """The severities in words."""
        return [self.label.format(level) for level in self.levels]


def _noise(batch: Batch, sigma: float) -> Tensor:
    channels = 1 if batch.grey else 3
    changed = []
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(batch.images[:, :channels].cpu().float() / 255, batch.seeds, strict=True):
            # Not torch.manual_seed, which notes the whole stack for the GPU, each time, where none was used yet.
            torch.default_generator.manual_seed(seed)
            changed.append(tv.gaussian_noise(image, sigma=sigma))
    noisy = (torch.stack(changed) * 255).round().byte()
    return noisy.expand_as(batch.images).to(batch.images.device)


def _blur(batch: Batch, share: float) -> Tensor:
    sigma = share * batch.images.shape[-1]
    blurred: Tensor = tv.gaussian_blur(batch.images, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2)
    return blurred


def _jpeg(batch: Batch, quality: float) -> Tensor:
    compressed: Tensor = tv.jpeg(batch.images.cpu(), int(quality))
    return compressed.to(batch.images.device)


def _pixelation(batch: Batch, share: float) -> Tensor:
    side = batch.images.shape[-1]
    small = tv.resize(batch.images, [max(1, round(share * side))] * 2)
    blocks: Tensor = tv.resize(small, [side, side], interpolation=InterpolationMode.NEAREST_EXACT)
    return blocks


def _both_ways(change: Callable[[Tensor, float], Tensor]) -> Change:
    """Change some images by plus the level and the others by minus it, as their seeds have it."""

    def changed(batch: Batch, level: float) -> Tensor:
        ways = np.array([np.random.default_rng(seed).integers(2) for seed in batch.seeds], bool)
        images = batch.images.clone()
        for way, sign in ((ways, 1.0), (~ways, -1.0)):
            rows = torch.from_numpy(way).to(images.device)
            if way.any():
                images[rows] = change(batch.images[rows], sign * level)
        return images

    return changed


def _within_reflection(change: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float], Tensor]:
    """Change images with their reflection around them, so that nothing blank comes in from outside."""

    def changed(images: Tensor, level: float) -> Tensor:
        side = images.shape[-1]
        padded = tv.pad(images, [max(_REFLECTED_PIXELS, math.ceil(_REFLECTED * side))], padding_mode="reflect")
        cropped: Tensor = tv.center_crop(change(padded, level), [side, side])
        return cropped

    return changed


def _dropped(batch: Batch, share: float) -> Tensor:
    cells = _DROP_GRID**2
    ranks = np.stack([np.random.default_rng(seed).permutation(cells) for seed in batch.seeds])
    grid = torch.from_numpy(ranks < round(share * cells)).view(-1, _DROP_GRID, _DROP_GRID).to(batch.images.device)
    places = torch.arange(batch.images.shape[-1], device=grid.device) * _DROP_GRID // batch.images.shape[-1]
    is_dropped = grid[:, places][:, :, places].unsqueeze(1)
    return torch.where(is_dropped, batch.blank.view(1, 3, 1, 1), batch.images)


def _shuffled(batch: Batch, grid: float) -> Tensor:
    """Cells of the largest part of the image that the grid divides; a margin of fewer pixels than cells stays."""
    count, side = int(grid), batch.images.shape[-1]
    cell, images = side // count, batch.images.clone()
    part, start = cell * count, (side - cell * count) // 2
    window = slice(start, start + part)
    orders = np.stack([np.random.default_rng(seed).permutation(count**2) for seed in batch.seeds])
    cells = images[..., window, window].reshape(len(images), 3, count, cell, count, cell)
    cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (N, cells, 3, cell, cell)
    order = torch.from_numpy(orders).to(images.device).view(len(images), -1, 1, 1, 1)
    moved = cells.take_along_dim(order, 1).view(len(images), count, count, 3, cell, cell).permute(0, 3, 1, 4, 2, 5)
    images[..., window, window] = moved.reshape(len(images), 3, part, part)
    return images


# Lengths are shares of the image's side, so that small and large images have comparable ones; docs/robustness.md.
CORRUPTIONS = (
    Corruption("noise", (0.05, 0.1, 0.15, 0.2, 0.3), "σ {:.0%}", _noise),
    Corruption("blur", (1 / 80, 1 / 48, 1 / 32, 3 / 64, 1 / 16), "σ {:.1%}", _blur),
    Corruption(
        "brightness",
        (0.15, 0.3, 0.45, 0.6, 0.75),
        "±{:.0%}",
        _both_ways(lambda images, change: tv.adjust_brightness(images, 1 + change)),
    ),
    Corruption(
        "contrast",
        (0.75, 0.5, 0.35, 0.2, 0.1),
        "{:.0%}",
        lambda batch, factor: tv.adjust_contrast(batch.images, factor),
    ),
    Corruption(
        "saturation",
        (0.2, 0.4, 0.6, 0.8, 1.0),
        "±{:.0%}",
        _both_ways(lambda images, change: tv.adjust_saturation(images, 1 + change)),
        needs_colour=True,
    ),
    Corruption("jpeg", (60, 40, 25, 15, 8), "quality {:g}", _jpeg),
    Corruption("pixelation", (0.75, 0.6, 0.5, 0.375, 0.25), "{:.0%}", _pixelation),
    Corruption(
        "rotation",
        (5, 10, 15, 20, 25),
        "±{:g}°",
        _both_ways(_within_reflection(lambda images, degrees: tv.rotate(images, degrees, _BILINEAR))),
    ),
    Corruption(
        "shear",
        (5, 10, 15, 20, 25),
        "±{:g}°",
        _both_ways(_within_reflection(lambda images, shear: tv.affine(images, 0, [0, 0], 1, [shear, 0], _BILINEAR))),
    ),
    Corruption(
        "translation",
        (1, 2, 3, 4),
        "±{:g} px",
        _both_ways(_within_reflection(lambda images, shift: tv.affine(images, 0, [int(shift)] * 2, 1, [0, 0]))),
    ),
    Corruption("patches_dropped", (0.1, 0.3, 0.5, 0.7, 0.9), "{:.0%}", _dropped, is_corruption=False),
    Corruption("patches_shuffled", (2, 4, 8), "{0:g}×{0:g}", _shuffled, is_corruption=False),
)


def corruptions_of(images: NDArray[np.uint8]) -> list[Corruption]:
    """The corruptions that change such images, uint8 (N, S, S, 3): where all pixels are grey there is no saturation."""
    has_colour = bool((images != images[..., :1]).any())
    return [corruption for corruption in CORRUPTIONS if has_colour or not corruption.needs_colour]


def corrupted(
    images: NDArray[np.uint8],
    seeds: Sequence[int],
    corruption: Corruption,
    level: float,
    *,
    blank: Sequence[int],
    grey: bool = False,
    batch_size: int = 256,
    device: torch.device = _CPU,
) -> NDArray[np.uint8]:
    """Change images, uint8 (N, S, S, 3), by a `level` of `corruption` in batches on `device`.

    `seeds` (N,) decide what is random about each image, `blank` is the colour of deleted patches. `grey` says that the
    three channels are one.
    """
    colour = torch.tensor(blank, dtype=torch.uint8, device=device)
    changed = []
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        pixels = torch.from_numpy(np.array(images[rows])).to(device).permute(0, 3, 1, 2).contiguous()
        batch = Batch(pixels, seeds[rows], colour, grey)
        changed.append(corruption.change(batch, level).permute(0, 2, 3, 1).cpu().numpy())
    return np.ascontiguousarray(np.concatenate(changed))
