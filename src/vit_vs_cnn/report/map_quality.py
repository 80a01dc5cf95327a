"""How faithful the maps of an explained contestant are, as the explanation writes it down."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vit_vs_cnn.evaluation.faithfulness import Faithfulness

_CURVES = ["deletion", "insertion", "random"]


def faithfulness_table(faithfulness: Mapping[str, Faithfulness]) -> pd.DataFrame:
    """A row per kind of map: mean areas, differences from random orders with 95 % intervals, and whether both hold."""
    rows = []
    for kind, measured in faithfulness.items():
        row: dict[str, object] = {"map": kind, "images": len(measured.random), **measured.mean_areas()}
        for name, areas in (("deletion", measured.deletion), ("insertion", measured.insertion)):
            difference, low, high = measured.difference_from_random(areas)
            row |= {f"{name}_difference": difference, f"{name}_low": low, f"{name}_high": high}
        rows.append(row | {"better_than_random": measured.verdict == "better_than_random"})
    return pd.DataFrame(rows)


def curves_table(faithfulness: Mapping[str, Faithfulness]) -> pd.DataFrame:
    """A row per kind of map, image, and share of it that is deleted: the probability of the class in each order."""
    tables = []
    for kind, measured in faithfulness.items():
        _, images, steps = measured.curves.shape
        table = pd.DataFrame({"map": kind, "image": np.arange(images).repeat(steps)})
        if measured.groups is not None:
            table["group"] = measured.groups.repeat(steps)
        table["deleted"] = np.tile(measured.shares, images)
        table[_CURVES] = measured.curves.reshape(len(_CURVES), -1).T
        tables.append(table)
    return pd.concat(tables) if tables else pd.DataFrame()


def read_maps(folder: Path) -> dict[str, Faithfulness]:
    """Read the faithfulness of each kind of map from the folder of a contestant's explanation; empty without maps."""
    table, maps = _read_table(folder / "faithfulness_curves.csv"), {}
    for kind in table["map"].unique() if len(table) else ():
        rows = table[table["map"] == kind]
        curves = rows[_CURVES].to_numpy().T.reshape(len(_CURVES), rows["image"].nunique(), -1)
        steps = curves.shape[2]
        groups = rows["group"].to_numpy()[::steps] if "group" in rows else None
        maps[kind] = Faithfulness(rows["deleted"].to_numpy()[:steps], curves, groups)
    return maps


def read_faithfulness(folder: Path) -> list[dict[Hashable, Any]]:
    """Read the rows of the faithfulness.csv of a contestant's explanation; none where it has no maps."""
    return _read_table(folder / "faithfulness.csv").to_dict("records")


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame()
