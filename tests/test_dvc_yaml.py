"""Dvc.yaml lists the modules that each stage imports: derived from the code, so that it cannot lag behind."""

import re

import grimp
import pytest
from ruamel.yaml import YAML

from conftest import REPOSITORY

PACKAGE = REPOSITORY / "src" / "vit_vs_cnn"
STAGES = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text())["stages"]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("vit_vs_cnn")


def modules_of(graph: grimp.ImportGraph, stage: str) -> set[str]:
    """The source files that `stage` reaches, without the packages' own docstrings."""
    root = f"vit_vs_cnn.stages.{stage}"
    files = {root, *graph.find_upstream_modules(root)}
    paths = (PACKAGE.parent / f"{name.replace('.', '/')}.py" for name in files)
    return {str(path.relative_to(REPOSITORY)) for path in paths if path.is_file()}


def shortest_list(modules: set[str]) -> list[str]:
    """A room as a folder where all its modules are used, the modules one by one otherwise."""
    entries = []
    for room in sorted({module.rsplit("/", 1)[0] for module in modules}):
        used = {module for module in modules if module.rsplit("/", 1)[0] == room}
        all_of_it = {
            str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / room).iterdir() if path.suffix in (".py", ".j2")
        } - {f"{room}/__init__.py"}
        templates = {path for path in all_of_it if path.endswith(".j2")}
        whole = used | templates == all_of_it and room != "src/vit_vs_cnn"
        entries += [room] if whole else sorted(used)
    return entries


def listed(stage: str) -> list[str]:
    body = STAGES[stage].get("do", STAGES[stage])
    return [path for path in body.get("deps", []) if path.startswith("src/")]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_the_modules_that_it_imports(graph: grimp.ImportGraph, stage: str) -> None:
    expected = shortest_list(modules_of(graph, stage))
    templates = [path for path in listed(stage) if path.endswith(".j2")]
    assert listed(stage) == sorted([*expected, *templates]), (
        f"the dependencies of {stage} in dvc.yaml should be:\n"
        + "\n".join(f"        - {path}" for path in sorted(expected))
    )


def test_there_is_a_stage_module_for_every_stage_and_no_other() -> None:
    modules = {path.stem for path in (PACKAGE / "stages").glob("*.py")} - {"__init__"}
    assert modules == set(STAGES)


@pytest.mark.parametrize("stage", sorted(set(STAGES) - {"prepare", "evaluate", "explain"}))
def test_only_evaluate_and_explain_depend_on_the_test_split(stage: str) -> None:
    body = STAGES[stage].get("do", STAGES[stage])
    inputs = [path for path in body.get("deps", []) if path.startswith("data/prepared")]
    assert not [path for path in inputs if path == "data/prepared" or path.endswith("/test")]


def test_no_code_knows_the_contestants_names() -> None:
    for path in PACKAGE.rglob("*.py"):
        code = re.sub(r'("""(.|\n)*?""")|(#.*)', "", path.read_text())
        if path.name != "published.py":
            assert not re.findall(r"""["'](vit|resnet)["']""", code), path
