"""What README and the documentation name exists: pages, commands, options, settings, files; and the site builds."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from harness.browser import CHROMIUM, open_page
from vit_vs_cnn.cli import commands
from vit_vs_cnn.config.load import merged_params, preset_names, settings_of
from vit_vs_cnn.config.nested import merge
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.config.yaml_text import parse_yaml
from vit_vs_cnn.core.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
SCHEMA = Settings.model_json_schema()
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
# Names in MLflow that look like paths of settings.
TAGS = {"data.digest", "data.val_digest", "data.test_digest", "gate.decision", "gate.time_ms", "gate.look"}
# A first query of somebody new, and the part of the site that answers it.
QUESTIONS = {
    "unbalanced classes": "own-images.html#unbalanced-classes",
    "how many images are enough": "own-images.html#how-many-images-are-enough",
    "out of memory": "faq.html#out-of-memory",
    "what is a challenger": "faq.html#what-is-a-challenger-and-what-a-champion",
    "deletion AUC": "reading-the-report.html#what-they-look-at",
    "JSON for scripts": "runs.html#in-scripts",
    "predict from Python": "notebook.html#the-model",
}


def _load_generator() -> ModuleType:
    specification = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pages of the site in build/docs, as `make docs` has it."""
    folder = tmp_path_factory.mktemp("site")
    _load_generator().write_pages(folder / "build" / "docs")
    shutil.copy(REPOSITORY / "zensical.toml", folder)
    (folder / "src").symlink_to(REPOSITORY / "src")
    return folder


@pytest.fixture(scope="module")
def texts(site: Path) -> dict[Path, str]:
    """The pages that people read, by file: those of the site and those at the root of the repository."""
    pages = [*(site / "build" / "docs").rglob("*.md"), *REPOSITORY.glob("*.md")]
    return {page: page.read_text(encoding="utf-8") for page in pages}


@pytest.fixture(scope="module")
def present(texts: Mapping[Path, str]) -> dict[str, str]:
    """The texts that describe today's project, by name: not the changelog, which names what once was."""
    return {"/".join(path.parts[-2:]): text for path, text in texts.items() if path.name.lower() != "changelog.md"}


def _prose(text: str) -> str:
    return SPAN.sub("", FENCE.sub("", text))


def _anchors(text: str) -> set[str]:
    """The anchors of the headings of a page, as Python-Markdown names them."""
    headings = re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text), re.MULTILINE)
    named = {heading: re.search(r"\{ #(\S+) \}$", heading) for heading in headings}
    slug = {heading: re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings}
    return {name[1] if name else re.sub(r"[-\s]+", "-", slug[heading]) for heading, name in named.items()}


def test_every_internal_link_leads_somewhere(texts: Mapping[Path, str]) -> None:
    broken = []
    for page, text in texts.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", _prose(text)):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if re.match(r"[a-z]+:", link):
                continue
            if not target.exists() or (anchor and anchor not in _anchors(texts[target])):
                broken.append(f"{page.name}: {link}")
    for page in (REPOSITORY / "docs").glob("*.md"):
        outside = re.findall(r"\]\((\.\./[^)#]+)", page.read_text(encoding="utf-8"))
        broken += [f"{page.name}: {link}" for link in outside if not (page.parent / link).exists()]
    assert not broken


def _command_lines(text: str) -> Iterator[list[str]]:
    """The words after `vit-vs-cnn` of every command in code, without what a shell does with its output."""
    blocks = [block.replace("\\\n", " ") for language, block in FENCE.findall(text) if language in ("", "sh")]
    lines = [line for block in blocks for line in block.splitlines()]
    for line in [*lines, *SPAN.findall(FENCE.sub("", text))]:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # an apostrophe: not a command
            continue
        if "vit-vs-cnn" in words and all("=" in word for word in words[: words.index("vit-vs-cnn")]):
            found = words[words.index("vit-vs-cnn") + 1 :]
            end = next((place for place, word in enumerate(found) if word in ("|", ">", "&&", ";")), len(found))
            yield found[:end]


def _problem(words: list[str]) -> str | None:
    """What is wrong with a command, or None."""
    command: click.Command = commands
    context = click.Context(command, info_name="vit-vs-cnn")
    rest = words
    while isinstance(command, click.Group) and rest and not rest[0].startswith(("-", "…", "<", "[", "COMMAND")):
        try:
            _, found, rest = command.resolve_command(context, rest)
        except click.UsageError as error:
            return error.message
        assert found is not None
        command = found
        context = click.Context(command, info_name=command.name, parent=context)
    known = {option for param in command.get_params(context) for option in param.opts}
    for place, word in enumerate(rest):
        option, _, value = word.partition("=")
        following = value or (rest[place + 1] if place + 1 < len(rest) else "")
        if option.startswith("--") and option not in known:
            return f"no option {option}"
        if option == "--preset" and following.islower() and following not in preset_names(REPOSITORY):
            return f"no preset {following}"
        path = following.partition("=")[0]
        if option == "--set" and path.islower() and not _is_setting(path):
            return f"no setting {path}"
    return None


def _is_setting(path: str) -> bool:
    return _has(SCHEMA, path.split("."))


def _has(entry: Mapping[str, Any], keys: list[str]) -> bool:
    """Whether the schema of a setting has another one at the path `keys` below it."""
    if not keys or "oneOf" in entry:  # below a search space there may be any path
        return True
    if "anyOf" in entry:
        return any(_has(option, keys) for option in entry["anyOf"])
    if "items" in entry:
        return _has(entry["items"], keys)
    if "$ref" in entry:
        return _has(SCHEMA["$defs"][entry["$ref"].rpartition("/")[2]], keys)
    below = entry.get("properties", {}).get(keys[0]) or entry.get("additionalProperties")
    return isinstance(below, dict) and _has(below, keys[1:])


def test_every_command_exists_with_its_options(present: Mapping[str, str]) -> None:
    found = [(page, words) for page, text in present.items() for words in _command_lines(text)]
    problems = [(page, words, _problem(words)) for page, words in found]
    assert not [(page, shlex.join(words), problem) for page, words, problem in problems if problem]
    assert len(found) > 100


def test_every_option_that_is_named_alone_exists(present: Mapping[str, str]) -> None:
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in REPOSITORY.glob("benchmarks/*.py"))
    known = {"--help", "--profile"} | set(re.findall(r'"(--[a-z-]+)"', scripts))

    def collect(command: click.Command) -> None:
        known.update(option for param in command.params for option in param.opts)
        if isinstance(command, click.Group):
            for child in command.commands.values():
                collect(child)

    collect(commands)
    named = {
        (page, span.split()[0].partition("=")[0])
        for page, text in present.items()
        for span in SPAN.findall(FENCE.sub("", text))
        if re.match(r"--[a-z]", span)
    }
    assert not {(page, option) for page, option in named if option not in known}


def test_the_settings_reference_has_the_values_of_lists_and_of_the_first_contestant(present: Mapping[str, str]) -> None:
    page, values = present["docs/settings.md"], parse_yaml((REPOSITORY / "params.yaml").read_text(), "params.yaml")
    facts = dict(re.findall(r"^#+ `(\S+)` .*\n\n(.*)$", page, re.MULTILINE))
    assert facts["seeds"].endswith(f"`{values['seeds']}` in params.yaml")
    first = next(iter(values["models"]))
    assert facts["models.<contestant>.timm"].endswith(f"`{values['models'][first]['timm']}` for {first} in params.yaml")


def test_every_setting_that_is_named_exists(present: Mapping[str, str]) -> None:
    sections = "|".join(SCHEMA["properties"])
    form = re.compile(rf"((?:{sections})(?:\.[\w<>]+)+)(?:[=:].*)?$")
    files = re.compile(r"\.(csv|html|json|jsonl|md|parquet|py|yaml)$")
    named = {
        (page, path[1])
        for page, text in present.items()
        for span in SPAN.findall(FENCE.sub("", text))
        if (path := form.match(span)) and not files.search(path[1]) and path[1] not in TAGS
    }
    assert not {(page, path) for page, path in named if not _is_setting(path)}
    assert len(named) > 100


def test_every_example_of_settings_is_valid(present: Mapping[str, str]) -> None:
    params = merged_params(REPOSITORY, None, [])
    checked = 0
    for page, text in present.items():
        for language, block in FENCE.findall(text):
            values = parse_yaml(block, page) if language == "yaml" else None
            if not isinstance(values, dict) or not values.keys() <= SCHEMA["properties"].keys():
                continue
            merged = merge(params, values)
            merged["models"] = {name: model for name, model in merged["models"].items() if model is not None}
            try:
                settings_of(merged)
            except UserError as error:
                pytest.fail(f"{page}: {error}")
            checked += 1
    assert checked > len(preset_names(REPOSITORY))


def test_every_file_of_the_repository_that_is_named_exists(present: Mapping[str, str]) -> None:
    form = re.compile(r"(?:[\w-]+/)+[\w-]+\.(?:py|sh|toml)$|(?:presets|studies|flows|deploy)/[\w-]+\.yaml$")
    places = (REPOSITORY, REPOSITORY / "src" / "vit_vs_cnn")
    missing = {
        (page, word)
        for page, text in present.items()
        for span in SPAN.findall(FENCE.sub("", text))
        for word in span.split()
        if form.match(word) and not any((place / word).is_file() for place in places)
    }
    assert not missing


def test_the_site_has_what_is_generated_and_not_the_line_that_stands_for_it(site: Path) -> None:
    pages = {page.name: page.read_text(encoding="utf-8") for page in (site / "build" / "docs").rglob("*.md")}
    left = re.compile(r"^(?:\*Made when the site is built|<!-- generated)", re.MULTILINE)
    assert not [name for name, text in pages.items() if left.search(text)]
    assert "\n## `vit-vs-cnn run`\n" in pages["commands.md"]
    assert "Made when the site is built" in (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")


def test_the_notebook_was_run_to_its_end_and_is_small() -> None:
    file = REPOSITORY / "docs" / "notebook.ipynb"
    assert file.stat().st_size < 50_000
    code = [cell for cell in json.loads(file.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"execute_result"}
    assert len(outputs) == len(code)


def test_the_navigation_has_every_page(site: Path) -> None:
    def listed(entries: list[Any]) -> Iterator[str]:
        for entry in entries:
            for below in entry.values():
                yield from [below] if isinstance(below, str) else listed(below)

    pages = site / "build" / "docs"
    navigation = tomllib.loads((REPOSITORY / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    assert sorted(listed(navigation)) == sorted(str(page.relative_to(pages)) for page in pages.rglob("*.md"))


@pytest.fixture(scope="module")
def built(site: Path) -> Path:
    """The site, built strictly. Skips where Zensical is not installed."""
    if not all(importlib.util.find_spec(name) for name in ("zensical", "mkdocstrings")):
        pytest.skip("Zensical is not installed: make docs")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    answer = subprocess.run(command, cwd=site, capture_output=True, text=True, timeout=600, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return site / "build" / "site"


def test_the_site_builds_strictly_and_loads_nothing_from_a_network(built: Path) -> None:
    pages = list(built.rglob("*.html"))
    assert len(pages) > 40
    loaded = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=["']?(?:https?:)?//[^>]*>""")
    found = {tag for page in pages for tag in loaded.findall(page.read_text(encoding="utf-8"))}
    assert not {tag for tag in found if "canonical" not in tag}
    settings = (built / "settings.html").read_text(encoding="utf-8")
    assert all(f'id="{key}"' in settings for key in ("data.groups", "recipe.augment.mixup", "models.contestant.timm"))


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_search_answers_on_a_page_from_the_disk(built: Path, tmp_path: Path) -> None:
    root = "[...document.querySelectorAll('*')].find(one => one.shadowRoot?.querySelector('input'))?.shadowRoot"
    first = "slice(0, 3).some(link => link.href.replace(/[?][^#]*/, '').endsWith(answer))"
    with open_page((built / "index.html").as_uri(), tmp_path, 375, 800) as page:
        page.wait_for("document.readyState === 'complete'")
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        page.evaluate("document.querySelector('.md-search__button').click()")
        page.wait_for(f"Boolean({root})")
        for question, answer in QUESTIONS.items():
            page.evaluate(f"answer = '{answer}'; field = {root}.querySelector('input')")
            page.evaluate("field.value = ''; field.focus()")
            page.call("Input.insertText", text=question)
            page.wait_for(f"[...{root}.querySelectorAll('[role=option]')].{first}")
