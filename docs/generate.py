"""The pages of the documentation site: docs/*.md, and in them what is generated from the code.

`python docs/generate.py FOLDER` writes them to an empty folder. A line `<!-- generated: NAME -->` in a page is where
the text of GENERATED[NAME] goes. `make docs` builds build/site from them.
"""

import ast
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from vit_vs_cnn.cli import commands
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.config.yaml_text import read_yaml

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src" / "vit_vs_cnn"
# With a line before it that says, where the repository itself is read, what would be here.
_MARK = re.compile(r"^(?:\*Made when the site is built.*\*\n\n)?<!-- generated: (\w+) -->$", re.MULTILINE)
# A link to a file of the repository, which a git host shows and the site has not.
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")
_PLACEHOLDER = re.compile(r"\{\w+(:[^}]*)?\}")
_TYPES = {
    "integer": "whole number",
    "boolean": "`true` or `false`",
    "string": "text",
    "null": "`null`",
    "object": "mapping",
}
_SCALARS = {"boolean", "integer", "number", "string"}
# The subjects of report/captions.yaml as headings.
_SUBJECTS = {
    "eda": "Of the images",
    "explanation": "Of what a contestant looks at",
    "comparison": "Of the comparison",
    "robustness": "Under shift",
    "errors": "Of single mistakes",
    "tuning": "Of a search",
    "study": "Of a study",
}


def write_pages(folder: Path) -> None:
    """Write all pages of the site, and what they show, to `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(REPOSITORY / "docs", folder, ignore=shutil.ignore_patterns("*.py", "*.ipynb", "__pycache__"))
    for page in folder.glob("*.md"):
        text = _OUTSIDE.sub(r"\1", page.read_text(encoding="utf-8"))
        page.write_text(_MARK.sub(lambda mark: GENERATED[mark[1]](), text), encoding="utf-8")
    for room in rooms():
        page = folder / "api" / f"{room.name}.md"
        page.parent.mkdir(exist_ok=True)
        page.write_text(_api_page(room), encoding="utf-8")


def rooms() -> list[Path]:
    """The folders of the package with functions for other code; commands have a page of their own."""
    return [init.parent for init in sorted(SOURCE.glob("*/__init__.py")) if init.parent.name != "cli"]


def settings_reference() -> str:
    """Every setting: its type, default and value in params.yaml, its comment there, the docstring of its section."""
    schema = Settings.model_json_schema()
    values, comments = read_yaml(REPOSITORY / "params.yaml"), _comments(REPOSITORY / "params.yaml")
    lines: list[str] = []
    described: dict[str, str] = {}

    def describe(
        path: str, entry: Mapping[str, Any], value: Any, place: str = "in params.yaml", level: int = 3
    ) -> None:
        lines.extend([f"{'#' * level} `{path}` {{ #{path.replace('<', '').replace('>', '')} }}", ""])
        facts = [_type(entry)]
        if "default" in entry and not isinstance(entry["default"], dict):
            facts.append(f"default `{_shown(entry['default'])}`")
        sections = list(_sections(path, entry))
        if not sections and value is not None and value != entry.get("default"):
            facts.append(f"`{_shown(value)}` {place}")
        lines.extend(["; ".join(filter(None, facts)), "", _escaped(comments.get(path, "")), ""])
        lines.extend(_dimensions(entry, schema["$defs"]) if path == "tune.space" else [])
        for prefix, name in sections:
            section = schema["$defs"][name]
            if name in described:
                lines.extend([f"The settings of [`{described[name]}`](#{described[name]}).", ""])
                continue
            described[name] = prefix
            lines.extend([_escaped(section.get("description", "")).replace("None", "`null`"), ""])
            below = value if isinstance(value, dict) else {}
            if prefix != path and below:  # the first contestant stands for all
                first, below = next(iter(below.items()))
                place = f"for {first} in params.yaml"
            for key, child in section["properties"].items():
                describe(f"{prefix}.{key}", child, below.get(key), place)

    for key, entry in schema["properties"].items():
        describe(key, entry, values.get(key), level=2)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def commands_reference() -> str:
    """Every command as `--help` explains it: usage, options, examples."""
    lines: list[str] = []

    def describe(command: click.Command, context: click.Context) -> None:
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        lines.extend([f"## `{context.command_path}`", "", "```text", usage, "```", ""])
        lines.extend([_paragraphs(command.help or ""), ""])
        options = [record for param in command.params if (record := param.get_help_record(context))]
        lines.extend([f"- `{names}`: {_escaped(text)}" if text else f"- `{names}`" for names, text in options])
        examples = [line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  ")]
        examples = [re.sub(r" {3,}", "   # ", line) for line in examples]
        if examples:
            lines.extend(["", "```sh", *examples, "```"])
        lines.append("")
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                describe(child, click.Context(child, info_name=name, parent=context))

    describe(commands, click.Context(commands, info_name="vit-vs-cnn"))
    return "\n".join(lines)


def presets_reference() -> str:
    """Every preset, with the result, hardware and command at its top."""
    files = sorted((REPOSITORY / "presets").glob("*.yaml"))
    return "\n\n".join(f"## {file.stem}\n\n```yaml\n{file.read_text(encoding='utf-8')}```" for file in files)


def figures_reference() -> str:
    """The title and the caption of every figure, without the numbers that a run fills in."""
    lines: list[str] = []
    for subject, entries in read_yaml(SOURCE / "report" / "captions.yaml").items():
        figures = [entry for entry in entries.values() if "title" in entry and "caption" in entry]
        if figures:
            lines.extend([f"### {_SUBJECTS.get(subject, subject)}", ""])
        for entry in figures:
            lines.extend([f"- **{_filled(entry['title'], entry)}** {_filled(entry['caption'], entry)}"])
        lines.append("")
    return "\n".join(lines)


def api_index() -> str:
    """The rooms of the code, and what each is about."""
    return "\n".join(f"- [`{room.name}`](api/{room.name}.md): {_about(room / '__init__.py')}" for room in rooms())


def notebook() -> str:
    """docs/notebook.ipynb as a page: its texts, its code, and what that printed when it was run."""
    lines: list[str] = []
    for cell in json.loads((REPOSITORY / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        lines.extend([source, ""] if cell["cell_type"] == "markdown" else ["```python", source, "```", ""])
        for output in cell.get("outputs", ()):
            lines.extend(["```text", "".join(output["data"]["text/plain"]), "```", ""])
    return "\n".join(lines)


def _included(name: str) -> str:
    """A page of the repository without its title, with links as they are in the site."""
    text = (REPOSITORY / name).read_text(encoding="utf-8").partition("\n")[2]
    text = text.replace("](docs/", "](").replace("](CHANGELOG.md", "](changelog.md")
    return text.replace("](CONTRIBUTING.md", "](contributing.md")


GENERATED: dict[str, Callable[[], str]] = {
    "settings": settings_reference,
    "commands": commands_reference,
    "presets": presets_reference,
    "figures": figures_reference,
    "api": api_index,
    "notebook": notebook,
    "changelog": lambda: _included("CHANGELOG.md"),
    "contributing": lambda: _included("CONTRIBUTING.md"),
}


def _comments(path: Path) -> dict[str, str]:
    """The comment behind each key of a YAML file in block style, by the path of the key."""
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        key = re.match(r"^([ -]*)([a-z_]\w*):", line)
        if key is None:
            continue
        parents = [parent for parent in parents if parent[0] < len(key[1])] + [(len(key[1]), key[2])]
        names = [name for _, name in parents]
        if names[0] == "models" and len(names) > 1:  # the first contestant stands for all
            names[1] = "<contestant>"
        comment = line.partition(" # ")[2].strip()
        if comment:
            found.setdefault(".".join(names), comment)
    return found


def _sections(path: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The models whose settings lie below a setting, with the path that these begin with."""
    for option in entry.get("anyOf", [entry]):
        if "$ref" in option:
            yield path, _name(option)
        elif "$ref" in option.get("items", {}):
            yield path, _name(option["items"])
        elif isinstance(below := option.get("additionalProperties"), dict) and "$ref" in below:
            yield f"{path}.<contestant>", _name(below)


def _name(reference: Mapping[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _type(entry: Mapping[str, Any]) -> str:
    """The type of a setting in words, with its limits; nothing of a section."""
    if options := entry.get("anyOf"):
        plain = {option.get("type") for option in options} >= _SCALARS
        others = [option for option in options if not (plain and option.get("type") in _SCALARS)]
        return " or ".join(dict.fromkeys(filter(None, ["a plain value" * plain, *map(_type, others)])))
    if "enum" in entry or "const" in entry:
        return " or ".join(f"`{value}`" for value in entry.get("enum", [entry.get("const")]))
    if "oneOf" in entry:
        return "a dimension"
    if "items" in entry:
        return f"list of: {_type(entry['items']) or 'settings'}"
    if isinstance(below := entry.get("additionalProperties"), dict):
        return f"mapping to: {_type(below) or 'settings'}"
    kind = str(entry.get("type", ""))
    return _TYPES.get(kind, kind) + _limits(entry)


def _dimensions(entry: Mapping[str, Any], models: Mapping[str, Any]) -> list[str]:
    """The kinds of dimensions that a search space may have."""
    kinds = entry["additionalProperties"]["anyOf"][0]["oneOf"]
    sections = [models[_name(kind)] for kind in kinds]
    return [
        f"- `type: {section['properties']['type']['const']}`: {section['description']} Keys: "
        + ", ".join(f"`{key}`" for key in section["properties"] if key != "type")
        for section in sections
    ] + [""]


def _limits(entry: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    return "".join(f", {word} {entry[key]:,.10g}" for key, word in words.items() if key in entry)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _escaped(text: str) -> str:
    """The text with angle brackets that Markdown takes for HTML written out, except in code."""
    parts = text.split("`")
    return "`".join(part.replace("<", "&lt;") if index % 2 == 0 else part for index, part in enumerate(parts))


def _paragraphs(text: str) -> str:
    return _escaped("\n\n".join(" ".join(part.split()) for part in text.replace("\b\n", "").split("\n\n")))


def _filled(text: str, entry: Mapping[str, Any]) -> str:
    """A caption with the parts that its figure always has, and dots in place of what a run fills in."""
    for part, words in entry.items():
        text = text.replace(f"{{{part}}}", str(words))
    text = _PLACEHOLDER.sub("…", text)
    return _escaped(re.sub(r"(?<=[.…])( …)+(?= [A-Z]|$)|^(… )+(?=[A-Z])", "", text).strip())


def _about(module: Path) -> str:
    return " ".join((ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").split())


def _api_page(room: Path) -> str:
    modules = [module.stem for module in sorted(room.glob("*.py")) if not module.stem.startswith("_")]
    listed = "\n\n".join(f"::: vit_vs_cnn.{room.name}.{module}" for module in modules)
    return f"# {room.name}\n\n{_about(room / '__init__.py')}\n\n{listed}\n"


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
