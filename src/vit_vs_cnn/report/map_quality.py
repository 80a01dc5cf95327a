"""How faithful the maps of an explained contestant are, as the explanation wrote it down."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class MapQuality:
    """The area under the deletion curve less that of random orders, of one kind of map, with its 95 % interval."""

    kind: str
    difference: float
    low: float
    high: float


def read_map_qualities(folder: Path) -> list[MapQuality]:
    """Read how faithful the maps in the folder of a contestant's explanation are; none where it has no maps."""
    path = folder / "faithfulness.csv"
    if not path.is_file() or not path.read_text(encoding="utf-8").strip():
        return []
    rows = pd.read_csv(path)[["map", "deletion_difference", "deletion_low", "deletion_high"]]
    return [MapQuality(*row) for row in rows.itertuples(index=False)]
