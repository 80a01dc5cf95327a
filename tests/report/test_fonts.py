"""Names in any script: drawn in a font that has them, or said to be without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image

from vit_vs_cnn.report.class_axes import class_matrix
from vit_vs_cnn.report.embed import embedded_figures
from vit_vs_cnn.report.figure_writer import FigureIndex, FigureWriter
from vit_vs_cnn.report.fonts import save_figure, shortened, text_width
from vit_vs_cnn.report.grid import Tile, image_grid

# For private use: a font has it only where somebody made one for it.
NOWHERE = "\U0010fffd"
GREY = np.full((8, 8, 3), 99, np.uint8)

DRAW = """
import sys
from pathlib import Path
from vit_vs_cnn.report.fonts import save_figure
from vit_vs_cnn.report.style import new_figure
figure = new_figure(1, 1)
figure.set_layout_engine("none")
figure.text(0.5, 0.5, sys.argv[1], fontsize=40, ha="center", va="center")
print(save_figure(figure, Path(sys.argv[2]), vector=True).name)
"""


def grid_of(name: str):
    return image_grid([[Tile(GREY, name)]], 96, row_labels=[name])


def test_a_name_without_a_font_is_text_in_an_svg_and_code_points_in_the_png(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = grid_of(f"cat {NOWHERE}")
    shown = save_figure(figure, tmp_path / "a.png", vector=True)
    assert shown == tmp_path / "a.svg"
    assert f">cat {NOWHERE}</text>" in shown.read_text(encoding="utf-8")
    said = capsys.readouterr().err
    assert said.count("note: no font of this machine has") <= 1  # and not again for the same characters
    assert {text.get_text() for text in figure.axes[0].texts} == {"cat \\U0010fffd"}
    assert (tmp_path / "a.png").is_file()


def test_the_same_figure_is_the_same_svg(tmp_path: Path) -> None:
    first, second = (
        save_figure(grid_of(NOWHERE), tmp_path / folder / "a.png", vector=True).read_bytes()
        for folder in ("one", "two")
        if not (tmp_path / folder).mkdir()
    )
    assert first == second


def test_names_on_the_axes_of_a_matrix_are_told_by_their_code_points_too(tmp_path: Path) -> None:
    figure = class_matrix(np.eye(2), ("cat", NOWHERE), np.full((2, 2), ""), "share")
    assert save_figure(figure, tmp_path / "a.png") == tmp_path / "a.png"
    for labels in (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()):
        assert [label.get_text() for label in labels] == ["cat", "\\U0010fffd"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.png"}


def test_the_report_embeds_the_svg_where_there_is_one_and_the_png_elsewhere(tmp_path: Path) -> None:
    writer = FigureWriter(tmp_path, "comparison")
    writer.add_images("reliability", grid_of("cat"), "seen")
    writer.add_images("per_class", grid_of(NOWHERE), "seen")
    writer.close()
    index = FigureIndex.model_validate(json.loads((tmp_path / "figures.json").read_text(encoding="utf-8")))
    assert [figure.file for figure in index.figures] == ["reliability.png", "per_class.svg"]
    assert (tmp_path / "per_class.png").is_file()
    assert [figure.html[:4] for figure in embedded_figures(tmp_path).figures] == ["<img", "<svg"]


def test_a_dollar_sign_begins_no_formula(tmp_path: Path) -> None:
    names = ("$x_1$", "$\\frac$", "a_b^c")
    figure = class_matrix(np.eye(3), names, np.full((3, 3), ""), "share")
    save_figure(figure, tmp_path / "a.png")
    grid = image_grid([[Tile(GREY, name)] for name in names], 96, row_labels=names)
    save_figure(grid, tmp_path / "b.png")
    for drawn in (figure, grid):
        texts = [text for text in drawn.findobj(Text) if text.get_text() in names and text.get_visible()]
        assert len(texts) == 6
        assert not any(text.get_parse_math() for text in texts)


def test_a_font_that_was_just_installed_is_found(tmp_path: Path) -> None:
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "square"])
    font.setupCharacterMap({ord(NOWHERE): "square"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (900, 0), "square": (900, 0)})
    font.setupHorizontalHeader(ascent=800, descent=0)
    font.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800)
    font.setupPost()
    (tmp_path / "fonts").mkdir()
    font.save(tmp_path / "fonts" / "Squares-Regular.ttf")
    picture = tmp_path / "a.png"
    command = [sys.executable, "-W", "error", "-c", DRAW, NOWHERE, str(picture)]
    drawn = subprocess.run(
        command, env=os.environ | {"XDG_DATA_HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert (drawn.stdout, drawn.stderr) == ("a.png\n", "")
    side = 40 / 72 * 130 * 0.8
    assert (np.asarray(Image.open(picture).convert("L")) < 128).sum() == pytest.approx(side**2, rel=0.1)


def test_ideographs_and_emoji_are_twice_as_wide_and_marks_take_no_room() -> None:
    assert [text_width(text) for text in ("cat", "猫", "🐈", "e\u0301", "a\u200db\ufe0f")] == [3, 2, 2, 1, 2]


@given(st.text(st.sampled_from("ab猫🐈é\u0301")), st.integers(4, 20))
def test_a_shortened_text_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = shortened(text, width)
    assert text_width(short) <= width
    if short != text:
        head, tail = short.split("…")
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len(tail) >= len(head) or "\u0301" in text
