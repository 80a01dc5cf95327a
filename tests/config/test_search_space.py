"""Bad search spaces are one sentence before anything runs; good ones say what is drawn."""

from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from factories import TINY
from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.config.nested import merge
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.tuning.sampling import recipe_values, suggest, with_values

LR = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}
SMOOTHING = {"type": "float", "low": 0.0, "high": 0.2, "step": 0.05}
NAME = {"type": "categorical", "choices": ["adamw", "sgd", "muon"]}
MOMENTUM = {"type": "float", "low": 0.5, "high": 0.99, "when": {"optimizer.name": ["sgd", "muon"]}}


def searching(space: Any, **more: Any) -> Settings:
    return parse_settings(merge(TINY, {"tune": {"trials": 4, "space": space, **more}}))


def read(space: Any) -> tuple[Settings | None, str]:
    try:
        return searching(space), ""
    except UserError as error:
        return None, str(error)


def refused(space: Any, **more: Any) -> str:
    with pytest.raises(UserError) as error:
        searching(space, **more)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.startswith("params.yaml: ")
    return sentence


def test_paths_may_be_nested_or_dotted() -> None:
    nested, dotted = searching({"optimizer": {"lr": LR}}), searching({"optimizer.lr": LR})
    assert nested == dotted
    assert list(nested.tune.space_of("vit")) == ["optimizer.lr"]


def test_settings_with_a_space_survive_being_written_and_read() -> None:
    settings = searching({"optimizer": {"lr": LR, "name": NAME, "momentum": MOMENTUM}})
    assert parse_settings(settings.model_dump(mode="json")) == settings


def test_a_contestant_can_add_change_and_remove_dimensions() -> None:
    own = {"vit": {"optimizer": None, "label_smoothing": SMOOTHING}}
    settings = searching({"optimizer": {"lr": LR}, "batch_size": {"type": "int", "low": 8, "high": 32}}, models=own)
    assert set(settings.tune.space_of("vit")) == {"batch_size", "label_smoothing"}
    assert set(settings.tune.space_of("resnet")) == {"batch_size", "optimizer.lr"}


def test_a_condition_is_drawn_after_what_it_names_and_only_where_it_holds() -> None:
    settings = searching({"optimizer": {"momentum": MOMENTUM, "name": NAME}})
    space = settings.tune.space_of("vit")
    assert list(space) == ["optimizer.name", "optimizer.momentum"]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(study.ask(), space) for _ in range(30)]
    for values in drawn:
        assert ("optimizer.momentum" in values) == (values["optimizer.name"] != "adamw")
    assert {values["optimizer.name"] for values in drawn} == {"adamw", "sgd", "muon"}
    assert recipe_values(settings, "vit") == {"optimizer.name": "adamw"}


def test_any_setting_can_be_searched_by_its_path() -> None:
    depth = {"type": "int", "low": 1, "high": 4}
    settings = searching({"optimizer": {"lr": LR}}, models={"vit": {"model": {"args": {"depth": depth}}}})
    found = with_values(settings, "vit", {"model.args.depth": 3, "optimizer.lr": 0.01}, "here").model("vit")
    assert (found.args["depth"], found.args["patch_size"], found.recipe.optimizer.lr) == (3, 8, 0.01)


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ({"optimizer": {"learning_rate": LR}}, "tune.space.optimizer.learning_rate: vit has no such setting"),
        ({"model": {"args": {"drop": LR}}}, "tune.space.model.args.drop: vit has no such setting; set it in"),
        ({"optimizer": LR | {"low": 0.3}}, "tune.space.optimizer: low must be below high, got 0.3 and 0.1"),
        ({"optimizer": {"lr": LR | {"low": 0.0}}}, "optimizer.lr: a logarithmic range starts above 0, got 0"),
        ({"optimizer": {"lr": LR | {"step": 0.1}}}, "optimizer.lr: a logarithmic range has no step"),
        ({"label_smoothing": SMOOTHING | {"step": 0.07}}, "label_smoothing: high must be low and a whole number of"),
        ({"optimizer": {"lr": LR | {"low": 0.01}}}, "the recipe's own value for vit, 0.002, cannot be drawn from it"),
        ({"optimizer": {"lr": LR | {"type": "normal"}}}, "tune.space.optimizer.lr: input tag 'normal'"),
        ({"optimizer": {"lr": LR | {"hihg": 1.0}}}, "tune.space.optimizer.lr.hihg: is not a known setting"),
        ({"optimizer": {"name": NAME | {"choices": ["adamw"]}}}, "tune.space.optimizer.name.choices: list should have"),
        ({"optimizer": {"name": NAME | {"choices": ["sgd", "sgd"]}}}, "'sgd' is among the choices twice"),
        ({"optimizer": {"momentum": MOMENTUM}}, "optimizer.momentum.when: optimizer.name is not searched"),
        ({"optimizer": {"name": NAME, "momentum": MOMENTUM | {"when": {"optimizer.name": "lion"}}}}, "is never 'lion'"),
        ({"batch_size": {"type": "float", "low": 8.5, "high": 32.0}}, "batch_size: 8.5 is not possible"),
        ({"augment": {"flip": {"type": "float", "low": 0.0, "high": 2.0}}}, "augment.flip: 2.0 is not possible"),
        ({"optimizer": {"lr": LR}, "optimizer.lr": LR}, "optimizer.lr is given twice"),
        ({"optimizer": {"lr": 0.1}}, "optimizer.lr: expected a dimension such as"),
        ({"optimizer": {"lr": None}}, "nothing is searched for vit"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(space: Any, sentence: str) -> None:
    assert sentence in refused(space)


def test_conditions_that_wait_for_one_another_are_refused() -> None:
    one = {"type": "categorical", "choices": [16, 32], "when": {"label_smoothing": 0.0}}
    two = SMOOTHING | {"when": {"batch_size": 16}}
    assert "batch_size, label_smoothing wait for one another" in refused({"batch_size": one, "label_smoothing": two})


def test_a_contestant_that_does_not_exist_is_refused() -> None:
    assert "tune.models.swin: there is no contestant" in refused({"optimizer": {"lr": LR}}, models={"swin": {}})


def test_without_trials_a_space_that_does_not_hold_the_recipe_is_accepted() -> None:
    searching({"optimizer": {"lr": LR | {"low": 0.01}}}, trials=0)


numbers = st.one_of(st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False))
dimensions = st.fixed_dictionaries(
    {"type": st.sampled_from(["float", "int", "categorical", "log"])},
    optional={
        "low": st.one_of(numbers, st.text(max_size=3)),
        "high": numbers,
        "step": st.one_of(numbers, st.none()),
        "log": st.booleans(),
        "choices": st.lists(st.one_of(numbers, st.booleans(), st.none(), st.text(max_size=3)), max_size=3),
        "when": st.dictionaries(st.sampled_from(["optimizer.lr", "batch_size", "nothing"]), numbers, max_size=1),
    },
)
paths = st.sampled_from(
    ["optimizer.lr", "batch_size", "clip_grad", "optimizer", "model.args.depth", "model.timm", "x", ""]
)


# The first text that hypothesis draws has it read its table of characters, which can take seconds.
@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(paths, st.one_of(dimensions, numbers, st.none(), st.lists(numbers, max_size=2)), max_size=3))
def test_whatever_a_space_holds_it_is_refused_in_a_sentence_or_can_be_drawn_from(space: dict[str, Any]) -> None:
    settings, sentence = read(space)
    assert "\n" not in sentence
    assert bool(settings) != sentence.startswith("params.yaml: ")
    if settings is None:
        return
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for name in settings.models:
        dimensions_of = settings.tune.space_of(name)
        values = suggest(study.ask(), dimensions_of)
        assert all(dimensions_of[path].holds(value) for path, value in values.items())
