"""Text in every script: fonts of this machine that have it, and what a figure shows where none does."""

import sys
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from matplotlib.axis import Axis, Tick
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from vit_vs_cnn.core.console import printable
from vit_vs_cnn.report.svg import save_svg

# Characters that format others and have no picture of their own: controls, joiners, variation selectors.
_FORMATTING = ("Cc", "Cf")
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)


def save_figure(figure: Figure, path: Path, *, vector: bool = False) -> Path:
    """Save `figure` as the PNG `path`, its text in fonts of this machine that have it, and return the path.

    Where no font has a character, its code point stands in the picture, and one line on stderr says so. With `vector`
    an SVG is saved beside it then, and its path returned: the browser that shows it may have the font.
    """
    texts = [text for text in figure.findobj(Text) if not text.get_text().isascii()]
    letters = {letter for text in texts for letter in text.get_text() if _is_drawn(letter)}
    families, missing = _fallbacks("".join(sorted(letters)))
    for text in texts:
        text.set_fontfamily([*text.get_fontfamily(), *families])
    if not missing:
        figure.savefig(path)
        return path
    _say_once(missing)
    best = path
    if vector:
        best = path.with_suffix(".svg")
        save_svg(figure, best)
    escapes = str.maketrans({letter: letter.encode("ascii", "backslashreplace").decode() for letter in missing})
    for text in texts:
        text.set_text(text.get_text().translate(escapes))
    # An axis writes its labels anew whenever it is drawn.
    for axis in figure.findobj(Axis):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if any(escapes.keys() & set(map(ord, label)) for label in labels):
            axis.set_ticklabels([label.translate(escapes) for label in labels])
    # Tight, because code points take more room than the figure has for names.
    figure.savefig(path, bbox_inches="tight")
    return best


def text_width(text: str) -> int:
    """The width of `text` in columns of a Latin letter: ideographs and emoji take two, marks on letters none."""
    return sum(_width(letter) for letter in text)


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` columns: what is too much goes, more of its head than of its tail."""
    if text_width(text) <= width:
        return text
    head, tail = _fitting(text, (width - 1) // 3), _fitting(text[::-1], width - 1 - (width - 1) // 3)
    return f"{head}…{tail[::-1]}"


def plain(ticks: Iterable[Tick]) -> None:
    """Write the labels of `ticks` as they are: a dollar sign in a name begins no formula."""
    for tick in ticks:
        tick.label1.set_parse_math(False)


def _fitting(text: str, width: int) -> str:
    """As much of the beginning of `text` as fits `width` columns."""
    used = 0
    for end, letter in enumerate(text):
        used += _width(letter)
        if used > width:
            return text[:end]
    return text


def _width(letter: str) -> int:
    if not _is_drawn(letter) or unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _is_drawn(letter: str) -> bool:
    return unicodedata.category(letter) not in _FORMATTING and ord(letter) not in _VARIATION_SELECTORS


@cache
def _fallbacks(letters: str) -> tuple[list[str], str]:
    """Families that together have the `letters` which the default font lacks, and the letters that none has."""
    missing = _lacking(findfont(FontProperties()), letters)
    families = []
    for path in _installed() if missing else ():
        still = _lacking(path, missing)
        if still != missing:
            fontManager.addfont(path)  # the list that Matplotlib keeps on disk may be older than the font
            families.append(FT2Font(path).family_name)
            missing = still
        if not missing:
            break
    return families, missing


@cache
def _installed() -> list[str]:
    """The fonts of this machine, upright ones of normal weight without serifs first."""
    paths = findSystemFonts()
    return sorted(paths, key=lambda path: ("Regular" not in path, "Sans" not in path, path))


def _lacking(path: str, letters: str) -> str:
    try:
        font = FT2Font(path)
    # Not every file that looks like a font can be read.
    except (OSError, RuntimeError):
        return letters
    # Emoji that are stored as pictures cannot be scaled, and Matplotlib draws none of them.
    return "".join(letter for letter in letters if not font.get_char_index(ord(letter))) if font.scalable else letters


@cache
def _say_once(missing: str) -> None:
    shown = printable(" ".join(missing[:10])) + (" …" if len(missing) > 10 else "")
    print(
        f"note: no font of this machine has {shown}: pictures show code points instead; the report leaves the text to "
        "the browser. A font such as Noto Sans (Debian: fonts-noto-cjk, fonts-noto-core) has them.",
        file=sys.stderr,
    )
