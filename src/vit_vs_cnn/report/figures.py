"""A folder of figures with the numbers behind them, and figures.json, which says in words what each shows."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FigureWriter:
    """Collects figures, tables and what had to be left out; `close` writes figures.json."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._figures: list[dict[str, str]] = []
        self._left_out: list[str] = []

    def add(self, name: str, figure: "Figure", title: str, caption: str) -> None:
        """Save `figure` as <name>.png."""
        from vit_vs_cnn.report.style import save_figure  # matplotlib, which a gallery without figures can do without

        save_figure(figure, self.folder / f"{name}.png")
        self._figures.append({"file": f"{name}.png", "title": title, "caption": caption})

    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Save `columns`, all of one length, as <name>.csv; floats with six significant digits."""
        with (self.folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*([_cell(value) for value in column] for column in columns.values()), strict=True))

    def skip(self, sentence: str) -> None:
        """Say why a figure is missing."""
        self._left_out.append(sentence)

    def close(self) -> None:
        """Write figures.json."""
        contents = {"figures": self._figures, "skipped": self._left_out}
        text = json.dumps(contents, indent=2, ensure_ascii=False) + "\n"
        (self.folder / "figures.json").write_text(text, encoding="utf-8")


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
