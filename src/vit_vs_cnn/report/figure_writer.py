"""A folder of figures with the numbers behind them, and figures.json with their titles and captions."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_vs_cnn.config.yaml_text import read_yaml
from vit_vs_cnn.core.records import Record

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@cache
def _captions() -> dict[str, Any]:
    captions: dict[str, Any] = read_yaml(Path(__file__).with_name("captions.yaml"))
    return captions


class FigureEntry(Record):
    """One figure of figures.json; `file` is the name of the PNG or SVG that a page shows, which is beside it."""

    file: str
    title: str
    caption: str


class FigureIndex(Record):
    """figures.json: the figures of its folder in order, and a sentence for each figure that had to be skipped."""

    figures: tuple[FigureEntry, ...]
    skipped: tuple[str, ...]


def figure_count(folder: Path) -> int:
    """How many figures the folder has. Raises UserError where figures.json is missing or not valid."""
    return len(FigureIndex.read(folder / "figures.json", "run `dvc repro` to make the figures").figures)


class FigureWriter:
    """Writes the figures and tables of a `subject` into `folder`; `close` writes figures.json.

    The texts are those of the subject in captions.yaml, with `values` in their placeholders; a text that is not there,
    or a placeholder without a value, is a KeyError. `skipped` has the sentences about missing figures.
    """

    def __init__(self, folder: Path, subject: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.skipped: list[str] = []
        self._texts = _captions()[subject]
        self._figures: list[FigureEntry] = []

    def add(self, name: str, figure: "Figure", /, **values: object) -> None:
        """Save `figure` as <name>.png, and list it with its title and caption; see `save_figure` for names in SVG."""
        from vit_vs_cnn.report.fonts import save_figure

        shown = save_figure(figure, self.folder / f"{name}.png", vector=True)
        title, caption = self.text(name, "title", **values), self.text(name, "caption", **values)
        self._figures.append(FigureEntry(file=shown.name, title=title, caption=caption))

    def skip(self, name: str, /, **values: object) -> None:
        """Record why the figure is missing."""
        self.skipped.append(self.text(name, "skipped", **values))

    def text(self, name: str, part: str, /, **values: object) -> str:
        """The `part` of a figure's texts: its title, its caption or what else captions.yaml has under its name."""
        text: str = self._texts[name][part]
        return text.format(**values).rstrip()  # a caption may end in a placeholder that is empty

    def table(self, name: str, columns: "Mapping[str, Any] | pd.DataFrame") -> None:
        """Save `columns`, all of one length, as <name>.csv; floats with six significant digits."""
        import pandas as pd  # half a second, which a folder without tables saves

        table = pd.DataFrame(columns)
        table.to_csv(self.folder / f"{name}.csv", index=False, float_format="%.6g", na_rep="nan")

    def close(self) -> None:
        """Write figures.json."""
        index = FigureIndex(figures=tuple(self._figures), skipped=tuple(self.skipped))
        index.write(self.folder / "figures.json")
