import io

import pytest
from tqdm import tqdm

from vit_vs_cnn.core.console import (
    PROGRESS_VARIABLE,
    bar_options,
    markdown_text,
    points,
    printable,
    read_progress,
    table,
)


@pytest.mark.parametrize(
    ("fraction", "options", "text"),
    [
        (0.1234, {}, "12.3"),
        (0.1234, {"digits": 0}, "12"),
        (0.05, {"sign": True}, "+5.0"),
        (-0.05, {"sign": True}, "−5.0"),
        (-0.05, {}, "−5.0"),
        (-0.0001, {}, "0.0"),
        (-0.0001, {"sign": True}, "+0.0"),
    ],
)
def test_points(fraction: float, options: dict, text: str) -> None:  # type: ignore[type-arg]
    assert points(fraction, **options) == text


def test_a_table_aligns_text_left_and_numbers_right() -> None:
    assert table([("model", "s"), ("vit", "1.5"), ("resnet", "12.0")]).splitlines() == [
        "model      s",
        "──────  ────",
        "vit      1.5",
        "resnet  12.0",
    ]
    assert table([("a", "b"), ("1", "long")], text_columns=2).splitlines()[2] == "1  long"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat\x1b[2J", "cat\\x1b[2J"),
        ("a\nb\r", "a\\nb\\r"),
        ("gpj\u202egnp.exe", "gpj\\u202egnp.exe"),
        ("猫 قطة किताब 👩\u200d🔬", "猫 قطة किताब 👩\u200d🔬"),
        ("\udcff", "\\udcff"),
        ("99\u00a0%, 犬\u3000猫", "99\u00a0%, 犬\u3000猫"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_printed_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert shown in table([("class",), (text,)])
    assert printable("two\nlines", lines=True) == "two\nlines"


def test_markdown_shows_what_a_name_holds_and_renders_none_of_it() -> None:
    shown = markdown_text("<img src=x> | [a](b) *c* gpj\u202egnp\x1b\n# d")
    assert shown == r"&lt;img src=x&gt; \| \[a\](b) \*c\* gpj\\u202egnp\\x1b\\n\# d"


def test_what_a_progress_bar_writes_for_a_parent_process_is_read_as_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRESS_VARIABLE, "1")
    written = io.StringIO()
    for _ in tqdm(range(4), desc="train vit", file=written, **bar_options() | {"mininterval": 0}):
        pass
    lines = [line for line in written.getvalue().replace("\r", "\n").splitlines() if line.strip()]
    steps = [step for line in lines if (step := read_progress(line))]
    assert len(steps) == len(lines)
    assert sorted({step.percent for step in steps}) == [0, 25, 50, 75, 100]
    assert {step.task for step in steps} == {"train vit"}
    assert steps[2].text.startswith("2/4, ")
    assert read_progress("an ordinary line") is None
