"""Whatever stands in params.yaml, in a preset or after --set: settings, or one sentence, and soon.

VIT_VS_CNN_FUZZ=20000 tries so many texts instead of a few hundred.
"""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factories import REPOSITORY
from vit_vs_cnn.config.load import merged_params, read_settings, settings_of
from vit_vs_cnn.core.errors import UserError

EXAMPLES = int(os.environ.get("VIT_VS_CNN_FUZZ", "300"))
PARAMS = (REPOSITORY / "params.yaml").read_text()
LINES = PARAMS.splitlines()
MULTIPLIED = "a: &a [x]\n" + "".join(f"{c}: &{c} [*{p}, *{p}, *{p}, *{p}]\n" for p, c in pairwise("abcdefghijk"))
HOSTILE = {
    "NUL": (b"seed: 1\0", "is not valid YAML"),
    "not UTF-8": (b"data: {name: \xff}", "is not UTF-8"),
    "UTF-16": ("seed: 1".encode("utf-16"), "is not UTF-8"),
    "tab": (b"data:\n\tname: x", "line 2"),
    "duplicate key": (b"seed: 1\nseed: 2", "line 2"),
    "two documents": (b"seed: 1\n---\nseed: 2", "a second document"),
    "tag": (b"seed: !!python/object/apply:os.system [ls]", "the tag"),
    "list as key": (b"[1, 2]: x", "the key"),
    "null as key": (b"~: x", "the key"),
    "long number": (b"seed: " + b"9" * 5000, "is not valid YAML"),
    "date": (b"seed: 2026-11-29", "seeds.0: "),
    "no such date": (b"seed: 2026-99-99 10:10:10", "valid"),
    "deep list": (b"seed: " + b"[" * 1000, "levels deep"),
    "deep mapping": (b"seed: " + b"{a: " * 1000, "levels deep"),
    "deep block": (b"\n".join(b" " * level + b"a:" for level in range(1000)), "levels deep"),
    "alias of itself": (b"seed: &a [*a]", "contains itself"),
    "aliases that multiply": (MULTIPLIED.encode(), "more than 20 aliases"),
    "large": (b"# " + b"x" * 2**21, "too many for settings"),
    "text": (b"hello", "expected a mapping"),
    "empty": (b"", "expected a mapping"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "presets").mkdir()
    (folder / "presets/own.yaml").write_text("seed: 3\n")
    return folder


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_settings_are_refused_in_one_sentence(folder: Path, kind: str) -> None:
    content, part = HOSTILE[kind]
    (folder / "params.yaml").write_bytes(content)
    (folder / "presets/own.yaml").write_text("{}\n")
    for read in (lambda: read_settings(folder / "params.yaml"), lambda: settings_of(merged_params(folder, None, ()))):
        with pytest.raises(UserError, match=part) as refused:
            read()
        assert len(str(refused.value)) < 2000
        assert "\0" not in str(refused.value)


@pytest.mark.parametrize("kind", sorted(set(HOSTILE) - {"text", "empty", "date"}))
def test_a_hostile_preset_is_refused_in_one_sentence(folder: Path, kind: str) -> None:
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "presets/own.yaml").write_bytes(HOSTILE[kind][0])
    with pytest.raises(UserError, match=r"own\.yaml"):
        settings_of(merged_params(folder, "own", ()))


@pytest.mark.parametrize(
    "override",
    [
        "=1",
        "a..b=1",
        ".".join("a" * 1000) + "=1",
        "seed=" + "[" * 1000,
        "seed=\0",
        "seed=!!python/name:os x",
        "x" * 9999,
    ],
)
def test_a_hostile_override_is_refused_in_one_sentence(folder: Path, override: str) -> None:
    (folder / "params.yaml").write_text(PARAMS)
    with pytest.raises(UserError, match="--set ") as refused:
        settings_of(merged_params(folder, None, (override,)))
    assert len(str(refused.value)) < 1000


STRANGE_LINES = ["? [a]", "- x", "&a b", "*a", "<<: {seed: 1}", "seed: .nan", "models:", "  vit:", "%YAML 1.1"]
STRANGE_VALUES = [".inf", "-1", "1e400", "0x10", "0o7", "yes", "~", "{}", "[]", "2026-01-01", "!!binary x"]
lines = st.sampled_from([*LINES, *STRANGE_LINES])
values = st.text(st.characters(exclude_categories=("Cs",)), max_size=30) | st.sampled_from(STRANGE_VALUES)


@given(st.data())
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_damaged_settings_are_read_or_refused_in_one_sentence(folder: Path, data: st.DataObject) -> None:
    """Some lines of the shipped params.yaml are replaced, moved or given other values."""
    text = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        row = data.draw(st.integers(0, len(text) - 1))
        match data.draw(st.sampled_from(["value", "line", "drop", "cut"])):
            case "value":
                text[row] = f"{text[row].partition(':')[0]}: {data.draw(values)}"
            case "line":
                text.insert(row, data.draw(lines))
            case "drop":
                del text[row]
            case "cut":
                text[row] = text[row][: data.draw(st.integers(0, 30))]
    (folder / "params.yaml").write_text("\n".join(text), encoding="utf-8")
    for read in (lambda: read_settings(folder / "params.yaml"), lambda: settings_of(merged_params(folder, None, ()))):
        try:
            read()
            sentence = ""
        except UserError as refused:
            sentence = str(refused)
        assert "\n" not in sentence
