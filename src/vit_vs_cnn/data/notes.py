"""Sentences for people about what was seen of the images while they were read."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vit_vs_cnn.data.dataset import Decoding
from vit_vs_cnn.data.levels import QUANTILES, is_deep

# Said where cropping discards more of the images' area, on average.
_NOTED_LOSS = 0.05
# Said where no image comes near the highest level that data.bit_depth allows: three bits are unused.
_DARK = 8
# Raw modes of Pillow, as RGB;16B: it reads the upper byte of each. 5 bits for each colour are called BGR;16.
_WIDE = re.compile(r";16[BLN]")
# The classes are unbalanced where the largest has more than so many times the images of the smallest.
UNBALANCED = 3


@dataclass(frozen=True)
class Survey:
    """What was seen of N images, in the order of their source; NaN or False for those that could not be opened.

    `lost` float64 (N,), the part of the area outside the centre square; `deep` bool (N,), one channel of more than 8
    bits, and its `highest` level float64 (N,); `wide` bool (N,), 16 bits for each colour.
    """

    lost: NDArray[np.float64]
    deep: NDArray[np.bool_]
    highest: NDArray[np.float64]
    wide: NDArray[np.bool_]

    @staticmethod
    def of(images: int) -> "Survey":
        """A survey that has not seen any of so many images."""
        nothing, no = np.full(images, np.nan), np.zeros(images, np.bool_)
        return Survey(nothing, no, nothing.copy(), no.copy())

    def see(self, position: int, image: Image.Image) -> None:
        """Take down the shape and the depth of an image that is not decoded yet."""
        self.lost[position] = 1 - min(image.size) / max(image.size)
        self.wide[position] = not is_deep(image) and bool(_WIDE.search(str(getattr(image, "tile", ""))))


def pixel_notes(survey: Survey, before: Decoding, decoding: Decoding, names: Sequence[str]) -> tuple[str, ...]:
    """What to know of the images called `names`, decoded by `decoding`; `before` is that without what train showed."""
    return tuple(_crop_note(survey, decoding, names)) + tuple(_depth_notes(survey, before, decoding))


def balance_note(classes: Sequence[str], counts: Sequence[int]) -> tuple[str, ...]:
    """The largest and the smallest of `classes` by their `counts` of training images; nothing where these are alike."""
    most, fewest = max(counts), min(counts)
    if most <= UNBALANCED * fewest or not fewest:
        return ()
    return (
        f"{classes[counts.index(most)]} has {most:,} training images, {most / fewest:.1f} times as many as "
        f"{classes[counts.index(fewest)]} with {fewest:,}: accuracy says little of the small classes; see "
        "select_by: balanced_accuracy and recipe.balance.",
    )


def _crop_note(survey: Survey, decoding: Decoding, names: Sequence[str]) -> Iterator[str]:
    seen = np.flatnonzero(np.isfinite(survey.lost))
    if decoding.fit != "crop" or not len(seen) or survey.lost[seen].mean() <= _NOTED_LOSS:
        return
    worst = seen[survey.lost[seen].argmax()]
    yield (
        f"data.fit: crop keeps the centre square of each image and discards {survey.lost[seen].mean():.0%} of the area "
        f"on average, {survey.lost[worst]:.0%} of {names[worst]}; pad and stretch keep all of it."
    )


def _depth_notes(survey: Survey, before: Decoding, decoding: Decoding) -> Iterator[str]:
    deep, total = int(survey.deep.sum()), int(np.isfinite(survey.lost).sum())
    if deep:
        yield from _range_notes(survey, before, decoding)
    if 0 < deep < total:
        yield (
            f"{deep:,} of {total:,} images have more than 8 bits and the others have not: the brightness of the two "
            "kinds is comparable only by chance."
        )
    if survey.wide.any():
        yield (
            f"{survey.wide.sum():,} images have 16 bits for each colour, of which the upper 8 are read: if they use "
            "fewer than 16 they come out dark."
        )


def _range_notes(survey: Survey, before: Decoding, decoding: Decoding) -> Iterator[str]:
    """How the levels of deep images were scaled, or what is doubtful where the settings say it."""
    highest = float(np.nanmax(survey.highest))
    if decoding.levels is None:
        yield "No training image has more than 8 bits: 16-bit images of other splits are scaled from 0 to 65,535."
    elif before.levels is None:
        low, high = decoding.levels
        yield (
            f"{survey.deep.sum():,} images have more than 8 bits: their levels from {low:,g} to {high:,g} become black "
            f"to white (the {100 * QUANTILES[0]:g} % and {100 * QUANTILES[1]:g} % quantiles of train, the same for all "
            "images); data.bit_depth sets the range instead, e.g. 12 for 0 to 4,095."
        )
    elif highest > before.levels[1]:
        above = int((survey.highest > before.levels[1]).sum())
        yield (
            f"{above:,} images have levels above the {before.levels[1]:,g} that data.bit_depth allows, up to "
            f"{highest:,g}: they are white there."
        )
    elif highest * _DARK <= before.levels[1]:
        yield (
            f"No image has a level above {highest:,g} of the {before.levels[1]:,g} that data.bit_depth allows: "
            "they come out dark."
        )
