"""A folder of figures with the numbers behind them, and figures.json with their titles and captions."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_vs_cnn.core.records import Record

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class FigureEntry(Record):
    """One figure of figures.json; `file` is the name of the PNG, which is beside it."""

    file: str
    title: str
    caption: str


class FigureIndex(Record):
    """figures.json: the figures of its folder in order, and a sentence for each figure that had to be skipped."""

    figures: tuple[FigureEntry, ...]
    skipped: tuple[str, ...]


class FigureWriter:
    """Writes figures and tables into `folder`; `close` writes figures.json."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._figures: list[FigureEntry] = []
        self._skipped: list[str] = []

    def add(self, name: str, figure: "Figure", title: str, caption: str) -> None:
        """Save `figure` as <name>.png."""
        figure.savefig(self.folder / f"{name}.png")
        self._figures.append(FigureEntry(file=f"{name}.png", title=title, caption=caption))

    def table(self, name: str, columns: "Mapping[str, Any] | pd.DataFrame") -> None:
        """Save `columns`, all of one length, as <name>.csv; floats with six significant digits."""
        import pandas as pd  # half a second, which a folder without tables saves

        table = pd.DataFrame(columns)
        table.to_csv(self.folder / f"{name}.csv", index=False, float_format="%.6g", na_rep="nan")

    def skip(self, sentence: str) -> None:
        """Record why a figure is missing."""
        self._skipped.append(sentence)

    def close(self) -> None:
        """Write figures.json."""
        index = FigureIndex(figures=tuple(self._figures), skipped=tuple(self._skipped))
        index.write(self.folder / "figures.json")
