"""Saliency maps as colours over an image."""

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

COLOUR_MAP = "viridis"
# Few enough that an overlay on a photograph stays small as PNG, too many to be seen as steps.
_COLOURS, _GREYS = 16, 12


def overlay(image: NDArray[np.uint8], saliency: NDArray[np.float32]) -> NDArray[np.uint8]:
    """`image`, uint8 (S, S, 3), in grey under `saliency` (G, G), which is smoothed and scaled to its maximum."""
    side = len(image)
    grey = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    grey = np.round(grey / 255 * _GREYS) / _GREYS * 255
    if saliency.max() <= 0:
        return np.asarray(grey, np.uint8)
    smooth = cv2.resize(saliency, (side, side), interpolation=cv2.INTER_CUBIC).clip(min=0)
    smooth = np.round(smooth / smooth.max() * _COLOURS) / _COLOURS
    colours = mpl.colormaps[COLOUR_MAP](smooth, bytes=True)[..., :3]
    return np.asarray(0.35 * grey + 0.65 * colours, np.uint8)
