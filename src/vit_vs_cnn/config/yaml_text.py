"""YAML from people, read within limits: plain values, one document, few aliases, bounded size and depth.

ruamel.yaml itself builds any tag that it knows, follows aliases of aliases to gigabytes, and recurses until Python or
the process gives up.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_vs_cnn.core.errors import UserError, first_line

if TYPE_CHECKING:
    from ruamel.yaml import YAML

_MOST_BYTES = 2**20
_MOST_LEVELS = 40
# Lists of aliases of lists of aliases: so many make at most some thousand values of one.
_MOST_ALIASES = 20


def read_yaml(path: Path) -> Any:
    """Read the plain values of a YAML 1.2 file. Raises UserError where it cannot be read, or not within the limits."""
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Read a text file. Raises UserError where it cannot be read, is too large or is not UTF-8."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UserError(f"{path}: holds more than {_MOST_BYTES:,} bytes, too many for settings.")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (at byte {error.start}): save it as UTF-8.") from None


def parse_yaml(text: str, where: str) -> Any:
    """The plain values in a YAML text. Raises UserError that begins with `where` if it is not within the limits."""
    from ruamel.yaml import YAML

    return _parse(text, YAML(typ="safe", pure=True), where)


def parse_yaml_with_comments(text: str, where: str) -> Any:
    """The same values in ruamel.yaml's own mappings, which keep the comments."""
    return _parse(text, round_trip(), where)


def round_trip() -> "YAML":
    """What reads and writes YAML with its comments."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    yaml.preserve_quotes = True
    return yaml


def _parse(text: str, yaml: "YAML", where: str) -> Any:
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        _check(text, where)
        values = yaml.load(text)
        _require_text_keys(values, where)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{where}: is not valid YAML{place}: {first_line(Exception(error.problem or ''))}.") from None
    # Of a number with thousands of digits, a date that does not exist, and what else ruamel.yaml lets through.
    except (YAMLError, ValueError, OverflowError, RecursionError, AttributeError, TypeError) as error:
        raise UserError(f"{where}: is not valid YAML: {first_line(error)}.") from None
    return values


def _check(text: str, where: str) -> None:
    """Walk through the text without building anything of it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent

    anchors: list[str | None] = []  # those of the collections around, which an alias would make endless
    documents, aliases = 0, 0
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, CollectionStartEvent):
            anchors.append(event.anchor)
        elif isinstance(event, CollectionEndEvent):
            anchors.pop()
        documents += isinstance(event, DocumentStartEvent)
        aliases += isinstance(event, AliasEvent)
        tag = getattr(event, "tag", None)
        if documents > 1:
            problem = "a second document begins: only one is read"
        elif len(anchors) > _MOST_LEVELS:
            problem = f"it is nested more than {_MOST_LEVELS} levels deep"
        elif aliases > _MOST_ALIASES:
            problem = f"there are more than {_MOST_ALIASES} aliases (*): write the values out"
        elif isinstance(event, AliasEvent) and event.anchor in anchors:
            problem = f"*{event.anchor} contains itself"
        elif tag not in (None, "!"):
            problem = f"the tag {tag} is not accepted: write a plain value"
        else:
            continue
        mark = event.start_mark
        raise UserError(f"{where}: line {mark.line + 1}, column {mark.column + 1}: {problem}.")


def _require_text_keys(values: Any, where: str) -> None:
    if isinstance(values, dict):
        for key, value in values.items():
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise UserError(f"{where}: the key {str(key)[:40]!r} is not a text: quote it.")
            _require_text_keys(value, where)
    elif isinstance(values, list):
        for value in values:
            _require_text_keys(value, where)
