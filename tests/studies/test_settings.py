from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from factories import REPOSITORY, TINY
from vit_vs_cnn.config.nested import merge
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.studies.settings import find_study, point_text, read_study, settings_at


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "presets").mkdir()
    own_cutout = {"models": {"vit": {"recipe": {"augment": {"cutout": 0.5}}}}}
    YAML().dump(merge(TINY, own_cutout), tmp_path / "params.yaml")
    YAML().dump({"train": {"epochs": 7}}, tmp_path / "presets" / "long.yaml")
    (tmp_path / "studies").mkdir()
    return tmp_path


def write(root: Path, **study: Any) -> Path:
    path = root / "studies" / "mine.yaml"
    YAML().dump(study, path)
    return path


def refusal(root: Path, **study: Any) -> str:
    path = write(root, **study)
    with pytest.raises(UserError) as refused:
        read_study(path, root)
    return str(refused.value).removeprefix(f"{path}: ")


def test_the_points_are_all_combinations_and_become_settings(root: Path) -> None:
    axes = {"images": [0.5, 1], "models.vit.args.depth": [1, 2]}
    study = read_study(write(root, preset="long", set={"recipe.batch_size": 8}, seeds=[3], axes=axes), root)
    assert [list(point.values()) for point in study.points()] == [[0.5, 1], [0.5, 2], [1, 1], [1, 2]]
    settings = settings_at(study, study.points()[1], root, {"train.epochs": 9})
    assert (settings.data.train_fraction, settings.models["vit"].args["depth"]) == (0.5, 2)
    assert (settings.recipe.batch_size, settings.seed, settings.train.epochs) == (8, 3, 9)
    assert settings_at(study, {}, root).train.epochs == 7
    assert point_text(study.points()[1]) == "50 % of the images, models.vit.args.depth=2"


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        ({}, "axes: dictionary should have at least 1 item after validation, not 0, got {}."),
        ({"images": []}, "axes.images: list should have at least 1 item after validation, not 0, got []."),
        ({"images": [0.0]}, "axes.images: 0.0 is no part of the training images: above 0 and at most 1."),
        ({"images": [True]}, "axes.images: True is no part of the training images: above 0 and at most 1."),
        ({"images": [0.5, 0.5]}, "axes.images: each value may be there once."),
        ({"epochs": [1.5]}, "axes.epochs: 1.5 is no number of epochs."),
        ({"seconds": [-1]}, "axes.seconds: -1 is no time."),
        ({"epochs": [1], "seconds": [1]}, "axes: epochs and seconds are two budgets, keep one of them."),
        ({"train.epochs": [1]}, "axes.train.epochs: this axis is called epochs."),
        ({"data.train_fraction": [1]}, "axes.data.train_fraction: this axis is called images."),
        ({"seed": [1]}, "axes.seed: seeds is a key beside axes."),
        ({"imagse": [1]}, "axes.imagse: there is no such setting; do you mean images?"),
        (
            {"recipe.augment.cutot": [0.1]},
            "axes.recipe.augment.cutot: there is no such setting; do you mean recipe.augment.cutout?",
        ),
        ({"models.vit": ["x"]}, "axes.models.vit: there is no such setting; do you mean models.vit.timm?"),
        (
            {"data.image_size": [16, 4]},
            "axes.data.image_size: 4: params.yaml: data.image_size: input should be greater than or equal to 8, got 4.",
        ),
        (
            {"recipe.augment.cutout": [0.0, 0.25]},
            "axes.recipe.augment.cutout: changes nothing for vit, whose own recipe sets it: write "
            "models.vit.recipe.augment.cutout.",
        ),
    ],
)
def test_what_is_wrong_with_an_axis_is_one_sentence_with_its_path(root: Path, axes: Any, sentence: str) -> None:
    assert refusal(root, axes=axes) == sentence


@pytest.mark.parametrize(
    ("study", "sentence"),
    [
        ({"axis": {}}, "axes: is missing; axis: is not a known setting."),
        ({"axes": {"images": [1]}, "same": "time"}, "same: input should be 'steps' or 'epochs', got 'time'."),
        ({"axes": {"images": [1]}, "preset": "lnog"}, "--preset lnog: there is no presets/lnog.yaml; there are long."),
        (
            {"axes": {"images": [1]}, "set": {"train.epoch": 3}},
            "params.yaml: train.epoch: is not a known setting.",
        ),
    ],
)
def test_what_is_wrong_beside_the_axes_too(root: Path, study: Any, sentence: str) -> None:
    assert refusal(root, **study) == sentence


def test_a_study_is_found_by_name_or_file(root: Path) -> None:
    path = write(root, axes={"images": [1]})
    assert find_study("mine", root) == find_study(str(path), root) == path
    with pytest.raises(UserError, match=r"yours: there is no such study; in studies/ there are: mine\.$"):
        find_study("yours", root)
    with pytest.raises(UserError, match="is named in lower-case letters"):
        find_study(str(path.rename(path.with_name("My study.yaml"))), root)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_that_are_shipped_fit_their_presets(path: Path) -> None:
    assert read_study(path, REPOSITORY).points()
