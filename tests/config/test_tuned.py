from pathlib import Path

import pytest

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.config.tuned import with_tuned, write_recipe
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import tuned
from vit_vs_cnn.stages import tune
from vit_vs_cnn.tuning.summary import read_tuning_summary


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
