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
    """One figure of figures.json; `file` is the name of the SVG or PNG beside it, `alt` says what is seen on it."""

    file: str
    title: str
    caption: str
    alt: str = ""

    @property
    def name(self) -> str:
        """The name of the figure in captions.yaml."""
        return Path(self.file).stem


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

    def add(self, name: str, figure: "Figure", alt: str, /, **values: object) -> None:
        """Save the chart `figure` as <name>.svg, and list it with its title, its caption and what is seen on it."""
        from vit_vs_cnn.report.svg import save_svg

        file = self.folder / f"{name}.svg"
        save_svg(figure, file)
        self._list(file, name, alt, values)

    def add_images(self, name: str, figure: "Figure", alt: str, /, **values: object) -> None:
        """Save a `figure` of images as <name>.png, and list it likewise; see `save_figure` for names without a font."""
        from vit_vs_cnn.report.fonts import save_figure

        self._list(save_figure(figure, self.folder / f"{name}.png", vector=True), name, alt, values)

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

    def _list(self, file: Path, name: str, alt: str, values: Mapping[str, object]) -> None:
        title, caption = self.text(name, "title", **values), self.text(name, "caption", **values)
        self._figures.append(FigureEntry(file=file.name, title=title, caption=caption, alt=alt))

    def close(self) -> None:
        """Write figures.json."""
        index = FigureIndex(figures=tuple(self._figures), skipped=tuple(self.skipped))
        index.write(self.folder / "figures.json")
