"""Charts as SVG that takes ink, lines and fonts from the page on which it stands."""

import io
import re
import warnings
from html import escape
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from vit_vs_cnn.report.style import INK, LINE, NEUTRAL

# What page.css.j2 calls these colours, which differ in the dark. Opened by itself, an SVG has those of the style.
_VARIABLES = {INK: "--text", NEUTRAL: "--quiet", LINE: "--line"}
_COLOUR = re.compile("|".join(_VARIABLES), re.IGNORECASE)
_FONT = re.compile(r"font: ([\d.]+px) [^;\"]*")
_IDENTIFIER = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r"#([\w.-]+)")


def save_svg(figure: Figure, path: Path) -> None:
    """Save `figure` as the SVG `path` with its text as text: the browser has fonts for names in every script.

    The same figure is the same bytes: there is no date and no random identifier in it.
    """
    drawn = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(drawn, format="svg", facecolor="none", metadata={"Date": None})
    text = drawn.getvalue()
    themed = _COLOUR.sub(lambda found: f"var({_VARIABLES[found[0].upper()]}, {found[0]})", text[text.index("<svg") :])
    themed = _FONT.sub(r"font-size: \1", themed).replace("<svg ", '<svg font-family="sans-serif" ', 1)
    path.write_text(themed, encoding="utf-8")


def inline_svg(path: Path, name: str, alt: str) -> str:
    """The SVG of `save_svg` as a part of a page; `name` is unique there, `alt` is for those who do not see it."""
    text = path.read_text(encoding="utf-8")
    # A page has namespaces of its own, and names no other address.
    svg = re.sub(r'\s*<metadata>.*?</metadata>| xmlns(:xlink)?="[^"]*"', "", text, flags=re.DOTALL)
    referenced = set(_REFERENCE.findall(svg))
    svg = _IDENTIFIER.sub(lambda found: f' id="{name}-{found[1]}"' if found[1] in referenced else "", svg)
    svg = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
