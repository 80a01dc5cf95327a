import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from factories import TINY
from vit_vs_cnn.config.load import merged_params, settings_of
from vit_vs_cnn.config.nested import merge
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.prepare import prepare
from vit_vs_cnn.studies.plan import Plan, plan_study, read_plan, study_folder
from vit_vs_cnn.studies.settings import read_study, settings_at

WHOLE = 1329  # training images of the digits


@pytest.fixture
def root(tmp_path: Path) -> Path:
    YAML().dump(merge(TINY, {"models": {"resnet": {"recipe": {"batch_size": 64}}}}), tmp_path / "params.yaml")
    (tmp_path / "studies").mkdir()
    return tmp_path


def study_file(root: Path, **study: Any) -> Path:
    path = root / "studies" / "mine.yaml"
    YAML().dump(study, path)
    return path


def planned(root: Path, **study: Any) -> Plan:
    return plan_study(study_file(root, **study), root)


def test_equal_steps_are_reached_with_fewer_images_and_the_counts_are_those_that_prepare_finds(
    root: Path, tmp_path: Path
) -> None:
    axes = {"images": [0.02, 0.1, 1.0], "epochs": [2, 3]}
    plan = planned(root, axes=axes)
    assert read_plan(study_folder(root, "mine")) == plan
    assert plan.images == WHOLE
    # An epoch of 26 images is one step of either batch, and would be four times as many of the larger.
    assert [run.name.removeprefix("mine-images-") for run in plan.runs] == [
        *(f"0.02-epochs-{epochs}-{name}" for epochs in (2, 3) for name in ("vit", "resnet")),
        *(f"{images}-epochs-{epochs}" for images in (0.1, 1) for epochs in (2, 3)),
    ]
    study = read_study(study_file(root, axes=axes), root)
    for run in plan.runs:
        settings = settings_at(study, run.values, root)
        for name in run.contestants:
            batch = settings.models[name].recipe.batch_size
            steps, whole = run.epochs * max(1, run.train_images // batch), WHOLE // batch
            assert 1 <= steps / (int(run.values["epochs"] or 0) * whole) <= 1.1
        assert f"train.epochs={run.epochs}" in run.overrides
    info, _ = prepare(settings_at(study, {"images": 0.02}, root).data, tmp_path / "out")
    counts = (info.splits["train"].images, info.splits["val"].images)
    assert counts == (plan.runs[0].train_images, plan.runs[0].val_images)
    assert all(run.seconds > 0 for run in plan.runs)


def test_what_counts_epochs_has_the_same_share_of_equal_steps_at_every_size(root: Path) -> None:
    recipe = {"schedule": {"warmup_epochs": 2}, "head_epochs": 1}
    changes = {"train": {"epochs": 4, "patience": 3}, "models": {"resnet": {"recipe": recipe}}}
    params = root / "params.yaml"
    YAML().dump(merge(YAML(typ="safe").load(params), changes), params)
    axes = {"images": [0.1, 1.0], "epochs": [1, 4]}
    few, more, *whole = planned(root, axes=axes).runs
    study = read_study(study_file(root, axes=axes), root)
    assert (few.epochs, more.epochs) == (11, 42)
    settings = settings_of(merged_params(root, None, more.overrides))
    assert settings.train.patience == 32
    vit, resnet = (model.recipe for model in settings.models.values())
    assert (vit.schedule.warmup_epochs, vit.head_epochs) == (10, 0)
    assert (resnet.schedule.warmup_epochs, resnet.head_epochs) == (21, 10)
    # One epoch of all images has no warm-up: it is at most half of all.
    assert settings_of(merged_params(root, None, few.overrides)).models["vit"].recipe.schedule.warmup_epochs == 0
    assert [run.overrides for run in whole] == [study.overrides_at(run.values) for run in whole]
    equal = planned(root, axes=axes, same="epochs").runs
    assert [run.overrides for run in equal] == [study.overrides_at(run.values) for run in equal]


def test_equal_epochs_and_a_limit_of_epochs(root: Path) -> None:
    same = planned(root, axes={"images": [0.02, 1.0]}, same="epochs")
    assert [run.epochs for run in same.runs] == [2, 2]
    limited = planned(root, axes={"images": [0.02, 1.0]}, max_epochs=5)
    assert [run.epochs for run in limited.runs] == [5, 5, 2]
    assert [run.steps_share for run in limited.runs] == [5 / (2 * 83), 5 / (2 * 20), 1]
    assert [run.steps_share for run in same.runs] == [1, 1]
    patient = planned(root, axes={"images": [1.0]}, set={"train.epochs": 24, "train.patience": 1}, max_epochs=5)
    assert settings_of(merged_params(root, None, patient.runs[0].overrides)).train.patience == 1


def test_points_that_a_limit_makes_the_same_training_are_refused(root: Path) -> None:
    with pytest.raises(UserError) as refused:
        planned(root, axes={"images": [0.02, 1.0], "epochs": [2, 3]}, max_epochs=5)
    assert str(refused.value) == (
        f"{root}/studies/mine.yaml: 2 % of the images, 2 epochs and 2 % of the images, 3 epochs are the same training "
        "of 5 epochs: raise max_epochs, or drop one of them."
    )


def test_splits_of_data_with_a_test_split_of_their_own_are_not_repeated(root: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("cats", "dogs"):
            for number in range(20):
                path = tmp_path / "pets" / split / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(path)
    pets = {"data.source": "folder", "data.name": "pets", "data.path": str(tmp_path / "pets")}
    with pytest.raises(UserError, match=r"axes\.data\.split_seed: pets comes with its own test images, which would be"):
        planned(root, set=pets, axes={"data.split_seed": [0, 1]})
    assert len(planned(root, axes={"data.split_seed": [0, 1]}).runs) == 2


def test_a_file_elsewhere_is_what_starts_it_again(root: Path, tmp_path: Path) -> None:
    assert planned(root, axes={"images": [1.0]}).given == "mine"
    elsewhere = tmp_path / "sizes.yaml"
    YAML().dump({"axes": {"images": [1.0]}}, elsewhere)
    assert plan_study(elsewhere, root).given == str(elsewhere)


def test_a_budget_in_seconds_gives_each_contestant_its_epochs_and_stays_the_same(root: Path) -> None:
    study = {"axes": {"images": [0.1, 1.0], "seconds": [600, 3600]}}
    said: list[str] = []
    plan = plan_study(study_file(root, **study), root, said.append)
    assert [run.contestants for run in plan.runs[:2]] == [("vit",), ("resnet",)]
    assert "models.resnet=null" in plan.runs[0].overrides
    assert plan.runs[0].name == "mine-images-0.1-seconds-600-vit"
    for run in plan.runs:
        budget = float(run.values["seconds"] or 0)
        batch, speed = {"vit": 16, "resnet": 64}[run.contestants[0]], plan.seconds_per_image[run.contestants[0]]
        computed = run.train_images // batch * batch
        assert computed < run.train_images
        assert run.epochs == math.floor(budget / (computed * speed))
        assert run.seconds > run.epochs * computed * speed
    assert [line.partition(":")[0] for line in said] == ["vit", "resnet"]
    assert planned(root, **study) == plan
    # What an epoch takes here is measured already: the refusal names it, and what is enough.
    with pytest.raises(UserError) as refused:
        planned(root, axes={"seconds": [0.0001]}, set={"train.refit": True})
    assert re.fullmatch(
        rf"{root}/studies/mine\.yaml: 0\.0001 s: an epoch of (vit|resnet) and one of its refit takes \d+\.\d s here: "
        r"choose \d+ seconds or more, or fewer images\.",
        str(refused.value),
    )


def test_an_empty_subset_is_one_sentence_before_anything_runs(root: Path) -> None:
    with pytest.raises(UserError) as refused:
        planned(root, axes={"images": [0.005, 1.0]})
    assert str(refused.value) == (
        f"{root}/studies/mine.yaml: axes.images: 0.005: data.train_fraction: 0.005 of 1,329 training images is fewer "
        "than the 10 classes: set it to 0.0076 or more."
    )


def test_a_name_says_the_point_or_is_a_digest_where_it_would_be_too_long(root: Path) -> None:
    axes = {"models.vit.args.embed_dim": [24, 48], "recipe.optimizer.name": ["adamw"]}
    assert planned(root, axes=axes).runs[0].name == "mine-embed_dim-24-name-adamw"
    runs = planned(root, axes=axes | {"data.groups": [f"{'(?:)' * 20}(..)$", "(..)$"]}).runs
    assert len({run.name for run in runs}) == 4
    assert max(len(run.name) for run in runs) < 20


def test_a_study_that_was_never_started_says_what_starts_it(root: Path) -> None:
    with pytest.raises(UserError, match="study mine has not been started here; `vit-vs-cnn study` starts it"):
        read_plan(study_folder(root, "mine"))
