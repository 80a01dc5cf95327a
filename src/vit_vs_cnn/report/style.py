"""The look of every figure: one palette that colour-blind people can read, one size of type."""

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# Of the palette that core/colours.py has: Okabe & Ito (2008), "Color Universal Design".
SPLIT_COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#009E73"}
# The nearest to red, green and blue in that palette.
CHANNEL_COLOURS = {"red": "#D55E00", "green": "#009E73", "blue": "#0072B2"}
SCORE_COLOURS = {"precision": "#009E73", "recall": "#CC79A7", "F1": "#E69F00"}
# Ink, quiet ink and lines: the light colours of page.css.j2, which an SVG on a page exchanges for the page's own.
INK = "#1B2029"
NEUTRAL = "#5B6472"
LINE = "#D8DCE3"
SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"
DOTS_PER_INCH = 130
# Inches. As wide as a phone shows it, type keeps its size; on a wide page it is as large as the text.
WIDTH = 4.8

_STYLE: dict[str, Any] = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": NEUTRAL,
    "axes.labelcolor": INK,
    "xtick.color": NEUTRAL,
    "xtick.labelcolor": INK,
    "ytick.color": NEUTRAL,
    "ytick.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "legend.frameon": False,
    "savefig.dpi": DOTS_PER_INCH,
}


def new_figure(width: float = WIDTH, height: float = 3.4, *, arranged: bool = True) -> Figure:
    """An empty figure in the project's style; sizes in inches. It needs no display and no pyplot state.

    Matplotlib draws it twice to arrange its axes; what has none to be arranged is drawn once.
    """
    mpl.rcParams.update(_STYLE)  # type: ignore[arg-type]  # matplotlib types keys as literals
    with mpl.rc_context({} if arranged else {"figure.constrained_layout.use": False}):
        return Figure(figsize=(width, height))
