"""How faithful the maps of an explained contestant are, as the explanation wrote it down."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class MapQuality:
    """The area under the deletion curve less that of random orders, of one kind of map, with its 95 % interval."""

    kind: str
    difference: float
    low: float
    high: float


def read_faithfulness(folder: Path) -> list[dict[Hashable, Any]]:
    """Read the rows of the faithfulness.csv of a contestant's explanation; none where it has no maps."""
    try:
        return pd.read_csv(folder / "faithfulness.csv").to_dict("records")
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return []


def read_map_qualities(folder: Path) -> list[MapQuality]:
    """Read how faithful the maps in the folder of a contestant's explanation are; none where it has no maps."""
    return [
        MapQuality(row["map"], row["deletion_difference"], row["deletion_low"], row["deletion_high"])
        for row in read_faithfulness(folder)
    ]
