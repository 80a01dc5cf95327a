"""What every source provides: names, labels, the splits it has, and a way to read the images.

A source is one module beside this one with one function `open_…` that returns a Source, called by data/prepare.py.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vit_vs_cnn.data.dataset import SplitName

RawImage = bytes | NDArray[np.uint8]
RowFinding = Literal["missing_file", "contradiction", "no_label", "repeated_row", "unlisted_file"]


@dataclass(frozen=True)
class Unreadable:
    """A file that cannot be read as an image, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Source:
    """N images before they are decoded.

    `names` and `labels` int64 (N,) are in the order of the images; `splits` int64 (N,) are positions in
    PREPARED_SPLITS; `missing` are the splits that the source does not have: they are carved from train. `read` yields
    each image once, in any order, with its position: an encoded file, or pixels as uint8 (H, W, 3).
    `unreadable` and `stray` (files outside the class folders) are not among the N. `groups` names for each image what
    it shares with others (a person, a place, a video), None where nothing is known. `notes` are sentences for people:
    how the source was understood, what was passed over and why. `row_findings` are what does not fit in a table of
    images, by kind; what the first three kinds name is not among the N.
    """

    description: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    splits: NDArray[np.int64]
    missing: tuple[SplitName, ...]
    read: Callable[[], Iterator[tuple[int, RawImage]]]
    unreadable: tuple[Unreadable, ...] = ()
    stray: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    row_findings: Mapping[RowFinding, tuple[str, ...]] = field(default_factory=dict)

    def of_rows(self, rows: NDArray[np.int64]) -> "Source":
        """The source with these of its images only, ascending positions int64 (M,)."""
        new_position = {int(row): position for position, row in enumerate(rows)}
        return replace(
            self,
            names=tuple(self.names[row] for row in rows),
            labels=self.labels[rows],
            splits=self.splits[rows],
            groups=None if self.groups is None else tuple(self.groups[row] for row in rows),
            read=lambda: (
                (new_position[position], image) for position, image in self.read() if position in new_position
            ),
        )
