"""How every figure looks: one palette that colour-blind people can read, one size of type, one way to save."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# Okabe & Ito (2008), "Color Universal Design": distinguishable with every common colour vision deficiency.
# The first entries go to the contestants in the order of params.yaml.
CONTESTANT_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SPLIT_COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#009E73"}
NEUTRAL = "#6B7280"
SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"

_STYLE: dict[str, Any] = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E5E7EB",
    "legend.frameon": False,
    "savefig.dpi": 130,
}


def contestant_colour(models: Mapping[str, object], name: str) -> str:
    """The colour (hex) of contestant `name`, the same in every figure of the experiment."""
    return CONTESTANT_COLOURS[list(models).index(name) % len(CONTESTANT_COLOURS)]


def new_figure(width: float = 8.0, height: float = 4.5) -> Figure:
    """An empty figure in the project's style; sizes in inches. It needs no display and no pyplot state."""
    mpl.rcParams.update(_STYLE)  # type: ignore[arg-type]  # matplotlib types keys as literals
    return Figure(figsize=(width, height))


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` as PNG to `path`, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
