"""The levels of images of more than 8 bits: the one range for a whole data set, and its scaling to 8 bits."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Range = tuple[float, float]

# Of the training pixels, as nnU-Net clips CT images (Isensee et al. 2021, arXiv 1904.08128, at 0.5 and 99.5 % of the
# foreground): with the extremes, one dead pixel or burnt-in label at 65,535 would leave 12-bit images almost black.
QUANTILES = (0.001, 0.999)
_MOST_SAMPLES = 2**22
_MOST_SAMPLES_PER_IMAGE = 2**16
_SIXTEEN_BITS: Range = (0.0, 65535.0)


def is_deep(image: Image.Image) -> bool:
    """Whether the image has one channel of more than 8 bits: 16-bit, 32-bit or float."""
    return image.mode.startswith("I") or image.mode == "F"


def sample_levels(levels: NDArray[np.generic], images: int, seed: int) -> NDArray[np.float32]:
    """Draw some finite levels of an image, float32: of fewer pixels the more `images` there are."""
    size = min(max(_MOST_SAMPLES // images, 1), _MOST_SAMPLES_PER_IMAGE)
    flat = levels.ravel()
    if flat.size > size:
        flat = flat[np.random.default_rng(seed).integers(0, flat.size, size)]
    drawn = flat.astype(np.float32)
    return drawn[np.isfinite(drawn)]


def highest_level(levels: NDArray[np.generic]) -> float:
    """The highest finite level of an image."""
    return float(np.max(levels.astype(np.float32), initial=-np.inf, where=np.isfinite(levels)))


def find_range(samples: Iterable[NDArray[np.float32]]) -> Range | None:
    """The range between the `QUANTILES` of all samples; None where there are none."""
    drawn = np.concatenate([np.empty(0, np.float32), *samples])
    if not drawn.size:
        return None
    low, high = np.quantile(drawn, QUANTILES).tolist()
    return low, high if high > low else low + 1.0


def to_8_bits(image: Image.Image, levels: Range | None) -> Image.Image:
    """Scale a deep image to 8 bits, so that the range `levels` becomes 0 to 255 and what lies beyond is cut off.

    Without a range, 16 bits are scaled from 0 to 65,535. Raises ValueError for other pixels then.
    """
    pixels = np.asarray(image)
    if levels is None and (image.mode == "F" or pixels.min() < 0 or pixels.max() > _SIXTEEN_BITS[1]):
        raise ValueError("32-bit pixels, whose range is not known: save it with 8 or 16 bits")
    low, high = levels or _SIXTEEN_BITS
    scaled = (pixels.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    # Pixels without a value, as depth and thermal cameras have, are black.
    return Image.fromarray(np.nan_to_num(scaled + 0.5, nan=0.0).clip(0, 255).astype(np.uint8))
