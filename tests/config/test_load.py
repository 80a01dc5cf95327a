from pathlib import Path

import pytest

from factories import REPOSITORY
from vit_vs_cnn.config.load import dump, merged_params, preset_names, settings_of, with_tuned, write_recipe
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import tuned
from vit_vs_cnn.stages import tune
from vit_vs_cnn.tuning.summary import read_tuning_summary


@pytest.mark.parametrize("preset", preset_names(REPOSITORY))
def test_every_preset_gives_valid_settings(preset: str) -> None:
    assert {"vit"} < settings_of(merged_params(REPOSITORY, preset, [])).models.keys()


def test_a_contestant_that_is_null_takes_no_part() -> None:
    params = merged_params(REPOSITORY, "cpu", ["models.resnet=null"])
    assert list(settings_of(params).models) == ["vit", "hybrid"]
    # One that a preset drops can be added again.
    params = merged_params(REPOSITORY, "airbench94", ["models.resnet.timm=resnet10t"])
    assert settings_of(params).models["resnet"].timm == "resnet10t"


def test_comments_survive_a_preset_and_overrides() -> None:
    text = dump(merged_params(REPOSITORY, "demo", ["train.epochs=3"]))
    assert "epochs: 3 " in text
    assert "# passes over train" in text


def test_overrides_come_after_the_preset_and_are_typed_as_yaml() -> None:
    settings = settings_of(
        merged_params(REPOSITORY, "demo", ["models.vit.recipe.optimizer.lr=1e-4", "models.vit.args={depth: 2}"])
    )
    assert settings.models["vit"].recipe.optimizer.lr == 1e-4
    assert settings.models["vit"].args["depth"] == 2
    assert settings.models["vit"].args["patch_size"] is not None


def test_a_third_contestant_needs_params_only() -> None:
    settings = settings_of(merged_params(REPOSITORY, "demo", ["models.convnext.timm=convnext_atto"]))
    assert list(settings.models) == ["vit", "resnet", "convnext"]


@pytest.mark.parametrize(
    ("preset", "override", "sentence"),
    [
        ("nope", "seed=1", "there is no presets/nope.yaml; there are"),
        (None, "seed", "expected key.path=value"),
        (None, "=1", "expected key.path=value"),
        (None, "train..epochs=1", "expected key.path=value"),
        (None, "models.vit.args={a", "not valid YAML"),
    ],
)
def test_a_bad_preset_or_override_is_one_sentence(preset: str | None, override: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        merged_params(REPOSITORY, preset, [override])
    assert sentence in str(error.value)


def test_without_trials_the_recipe_comes_through_unchanged(settings: Settings, project: Path) -> None:
    tune.run(settings, "vit")
    assert with_tuned(settings, "vit") == settings
    assert read_tuning_summary("vit").trials == 0


def test_what_was_found_changes_one_contestant_only(settings: Settings, project: Path) -> None:
    write_recipe(settings, "vit", tuned("vit"), {"optimizer.lr": 0.5, "model.args.depth": 3})
    found = with_tuned(settings, "vit")
    assert found.models["vit"].recipe.optimizer.lr == 0.5
    assert found.models["vit"].recipe.batch_size == settings.models["vit"].recipe.batch_size
    assert found.models["vit"].args["depth"] == 3
    assert found.models["vit"].args["patch_size"] == settings.models["vit"].args["patch_size"]
    assert found.models["resnet"] == settings.models["resnet"]


def test_a_damaged_file_is_named(settings: Settings, project: Path) -> None:
    tuned("vit").parent.mkdir()
    tuned("vit").write_text("recipe: {optimizer: {lr: fast}}\n")
    with pytest.raises(UserError, match=r"tuned/vit\.yaml: models\.vit\.recipe\.optimizer\.lr"):
        with_tuned(settings, "vit")
