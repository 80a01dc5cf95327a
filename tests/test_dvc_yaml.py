"""The rooms that each stage of dvc.yaml depends on, compared with those that it imports."""

import re

import grimp
import pytest
from ruamel.yaml import YAML

from factories import REPOSITORY

PACKAGE = REPOSITORY / "src" / "vit_vs_cnn"
STAGES = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text())["stages"]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("vit_vs_cnn")


def rooms_of(graph: grimp.ImportGraph, stage: str) -> list[str]:
    """The rooms whose code `stage` reaches, and its own module; core and tracking decide no result."""
    modules = graph.find_upstream_modules(f"vit_vs_cnn.stages.{stage}")
    rooms = {module.split(".")[1] for module in modules if module.count(".") > 1} - {"core", "tracking"}
    return sorted([*(f"src/vit_vs_cnn/{room}" for room in rooms), f"src/vit_vs_cnn/stages/{stage}.py"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_rooms_that_it_imports(graph: grimp.ImportGraph, stage: str) -> None:
    body = STAGES[stage].get("do", STAGES[stage])
    assert [path for path in body["deps"] if path.startswith("src/")] == rooms_of(graph, stage)


def test_there_is_a_stage_module_for_every_stage_and_no_other() -> None:
    modules = {path.stem for path in (PACKAGE / "stages").glob("*.py")} - {"__init__"}
    assert modules == set(STAGES)


# Nothing is chosen there: `compare` takes pictures of mistakes from it.
ON_TEST = {"evaluate", "robustness", "explain", "compare"}


@pytest.mark.parametrize("stage", sorted(set(STAGES) - {"prepare"}))
def test_only_what_chooses_nothing_depends_on_the_test_split(stage: str) -> None:
    body = STAGES[stage].get("do", STAGES[stage])
    inputs = [path for path in body.get("deps", []) if path.startswith("data/prepared")]
    assert any(path == "data/prepared" or path.endswith("/test") for path in inputs) == (stage in ON_TEST)


def test_no_code_knows_the_contestants_names() -> None:
    for path in PACKAGE.rglob("*.py"):
        code = re.sub(r'("""(.|\n)*?""")|(#.*)', "", path.read_text())
        assert not re.findall(r"""["'](vit|resnet)["']""", code), path
