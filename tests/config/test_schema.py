import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import REPOSITORY, TINY
from vit_vs_cnn.config.load import parse_settings, read_settings
from vit_vs_cnn.config.nested import merge, nest
from vit_vs_cnn.config.schema import ModelSettings, Settings
from vit_vs_cnn.config.yaml_text import read_yaml
from vit_vs_cnn.core.errors import UserError


def changed(path: str, value: Any) -> dict[str, Any]:
    return merge(TINY, nest({path: value}))


def test_the_projects_own_params_are_valid_and_say_the_reference_experiment() -> None:
    settings = read_settings(REPOSITORY / "params.yaml")
    assert settings.models["vit"].timm == "vit_base_patch16_224.augreg2_in21k_ft_in1k"
    assert settings.models["resnet"].timm == "resnet18.a1_in1k"
    assert settings.data.source == "cifar10"


def test_every_key_of_params_has_a_comment() -> None:
    explained: set[str] = set()
    for line in (REPOSITORY / "params.yaml").read_text().splitlines():
        key = line.split(":")[0].strip(" -")
        # What repeats, as in the second contestant, is explained where it comes first.
        assert "#" in line or not line.strip() or line.endswith(":") or key in explained, line
        explained.add(key)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("train.epoch", 3, "train.epoch: is not a known setting"),
        ("models.vit.recipe.optimizer.learning_rate", 0.1, "models.vit.recipe.optimizer.learning_rate"),
        ("train.epochs", "three", "train.epochs: input should be a valid integer"),
        ("train.epochs", 0, "train.epochs: input should be greater than or equal to 1, got 0"),
        ("train.epochs", 2.5, "train.epochs"),
        ("train.epochs", True, "train.epochs"),
        (
            "data.source",
            "imagenet",
            "data.source: input should be 'cifar10', 'folder', 'table', 'torchvision' or 'digits'",
        ),
        ("data.name", "Pets & Co", "data.name"),
        ("recipe.augment.flip", 1.5, "recipe.augment.flip"),
        ("models.vit.timm", None, "models.vit.timm"),
        ("seed", float("nan"), "seed"),
    ],
)
def test_a_bad_value_is_one_sentence_with_the_keys_path(path: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        parse_settings(changed(path, value))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_contestants_name_must_be_safe_as_a_folder() -> None:
    with pytest.raises(UserError, match=r"models\.\.\./evil"):
        parse_settings(merge(TINY, {"models": {"../evil": {"timm": "resnet18"}}}))


def test_an_experiment_needs_a_contestant() -> None:
    with pytest.raises(UserError, match="models: "):
        parse_settings(TINY | {"models": {}})


def test_a_missing_section_is_named() -> None:
    with pytest.raises(UserError, match="train: is missing"):
        parse_settings({key: value for key, value in TINY.items() if key != "train"})


def test_a_contestants_recipe_lies_over_the_shared_one() -> None:
    settings = parse_settings(changed("models.vit.recipe.optimizer.lr", 0.5))
    assert settings.models["vit"].recipe.optimizer.lr == 0.5
    assert settings.models["vit"].recipe.batch_size == settings.recipe.batch_size == 16
    assert settings.models["resnet"].recipe == settings.recipe


# What the params.yaml of earlier versions says, and what says otherwise than today's defaults.
FORMER = [
    ("recipe.augment.trivial_augment", False),
    ("models.vit.recipe.augment.trivial_augment", False),
    ("train.compile", "auto"),
    ("evaluate.bootstrap", 10_000),
    ("flow.notify", {"block": None, "ends": ["failed", "crashed"]}),
    ("flow.notify", {"block": None, "ends": ["completed"]}),
]
REMOVED = [
    (
        "recipe.augment.trivial_augment",
        True,
        "recipe.augment: trivial_augment is no longer a setting: use rotation, resize, brightness",
    ),
    (
        "flow.notify",
        {"block": "slack-webhook/team"},
        "flow: notify is no longer a setting: make an automation in Prefect's pages",
    ),
    *(
        (
            f"{recipe}.schedule.name",
            name,
            f"{recipe}.schedule.name: {name} is no longer a schedule, because it did not end at min_lr: use cosine or",
        )
        for recipe in ("recipe", "models.vit.recipe")
        for name in ("step", "multistep", "poly", "tanh")
    ),
    ("train.compile", "always", "train.compile: input should be a valid boolean, got 'always'"),
]


@pytest.mark.parametrize(("path", "value"), FORMER)
def test_removed_settings_of_earlier_versions_still_load(path: str, value: Any) -> None:
    assert parse_settings(changed(path, value)) == parse_settings(TINY)


@pytest.mark.parametrize(("path", "value", "sentence"), REMOVED)
def test_a_removed_setting_that_was_used_says_what_to_use_instead(path: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        parse_settings(changed(path, value))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_the_settings_in_models_that_earlier_versions_registered_still_load() -> None:
    model = parse_settings(TINY).models["vit"]
    metadata = merge(model.model_dump(mode="json"), {"recipe": {"augment": {"trivial_augment": False}}})
    assert ModelSettings.model_validate_json(json.dumps(metadata)) == model


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        parse_settings(TINY).train.epochs = 5  # type: ignore[misc]


def test_reading_back_what_was_dumped_gives_the_same_settings() -> None:
    settings = parse_settings(TINY)
    assert parse_settings(settings.model_dump()) == settings


def test_yaml_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("lr: 1e-3\n")
    assert read_yaml(path) == {"lr": 0.001}


@pytest.mark.parametrize("text", ["a: [1, 2", "\tb: 1", "a: 1\na: 2"])
def test_broken_yaml_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="is not valid YAML"):
        read_yaml(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(Settings.model_fields)), json_values)
def test_any_value_anywhere_is_taken_or_refused_with_a_sentence(section: str, value: Any) -> None:
    try:
        settings = parse_settings(TINY | {section: value})
    except UserError as error:
        assert str(error).startswith("params.yaml: ")  # noqa: PT017
    else:
        assert isinstance(settings, Settings)
