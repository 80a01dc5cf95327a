"""The images that the gate judges on: none that a version was trained on, and enough of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factories import IMAGES, add_version, new_registry
from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.data.dataset import DatasetInfo, Decoding, read_split
from vit_vs_cnn.data.prepare import prepare
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.export import export_model
from vit_vs_cnn.models.trained import TrainedModel, preprocess_for
from vit_vs_cnn.registry.evidence import FEWEST_IMAGES, collect, predict_test
from vit_vs_cnn.registry.loading import load_exported
from vit_vs_cnn.registry.promotion import promote, propose
from vit_vs_cnn.registry.versions import Registry


@pytest.fixture
def registry(project: Path) -> Registry:
    return new_registry()


def versions(registry: Registry, *numbers: int):
    return [registry.version(number) for number in numbers]


def test_test_images_that_either_was_trained_on_are_excluded(settings: Settings, registry: Registry) -> None:
    add_version(settings, registry, range(40), trained_on=range(30))
    add_version(settings, registry, range(40), trained_on=[20, 35, 10_000])
    found = collect(registry, versions(registry, 2, 1), PREPARED)
    assert (found.images, found.left_out, found.unknown) == (IMAGES, 31, ())
    for evidence in found.evidence:
        assert evidence.predictions.names == tuple(str(row) for row in range(30, IMAGES) if row != 35)
        assert int((~evidence.predictions.correct).sum()) == 9
    promote(registry, propose(registry, "1", settings, PREPARED), force=True, reason="a test")  # type: ignore[arg-type]
    proposal = propose(registry, "2", settings, PREPARED)
    assert proposal is not None
    assert "31 of 600 test images, which one was trained on, are excluded" in proposal.judged
    rule = proposal.rules[0]
    assert (rule.rule, rule.state, rule.value) == ("test images", "pass", 569)


def test_where_too_few_are_left_the_gate_refuses_and_judges_nothing_else(
    settings: Settings, registry: Registry
) -> None:
    add_version(settings, registry, range(40), trained_on=range(IMAGES - FEWEST_IMAGES + 1))
    proposal = propose(registry, "1", settings, PREPARED)
    assert proposal is not None
    assert proposal.failed == "test images"
    assert [(rule.measured, rule.required) for rule in proposal.rules] == [
        ("49 of 600 that none of the versions was trained on", "at least 50")
    ]


def test_a_version_that_recorded_no_training_images_is_named_and_judged_on_all(
    settings: Settings, registry: Registry
) -> None:
    add_version(settings, registry, range(40), trained_on=None)
    add_version(settings, registry, range(30))
    proposal = propose(registry, "1", settings, PREPARED)
    assert proposal is not None
    promote(registry, proposal)
    proposal = propose(registry, "2", settings, PREPARED)
    assert proposal is not None
    assert proposal.judged.endswith("it is not recorded which images version 1 trained on")
    assert "test images" not in {rule.rule for rule in proposal.rules}
    (accuracy,) = (rule for rule in proposal.rules if rule.rule == "accuracy")
    assert accuracy.measured.endswith("of 600 images")


def write_images(folder: Path, numbers: range) -> None:
    """Noise, another image for each number, in two classes."""
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        path = folder / ("even" if number % 2 == 0 else "odd") / f"{len(numbers) - number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def version_of(
    settings: Settings, registry: Registry, info: DatasetInfo, digest: str, folder: Path, trained_on: list[int]
) -> int:
    model = settings.models["resnet"]
    network = create_model(model, 2, info.image_size).eval()
    trained = TrainedModel(network, preprocess_for(model, info))
    export_model(trained, "resnet", model, info, np.zeros((2, 16, 16, 3), np.uint8), folder)
    return add_version(settings, registry, [], test_digest=digest, model=folder, trained_on=trained_on)


@pytest.mark.parametrize("added", [1, 10, 50])
def test_after_more_images_the_champion_is_judged_on_none_that_it_was_trained_on(
    settings: Settings, registry: Registry, tmp_path: Path, added: int
) -> None:
    """Per cent of images are added, and renamed all: the splits stay. Another split seed deals them anew, knowingly."""

    def prepared(count: int, seed: int = 0) -> DatasetInfo:
        write_images(tmp_path / str(count), range(count))
        values = {"source": "folder", "name": "tiny", "path": str(tmp_path / str(count)), "image_size": 16}
        return prepare(DataSettings.model_validate(values | {"split_seed": seed}), PREPARED)[0]

    info = prepared(400)
    before = {name: set(read_split(PREPARED, name).digests.tolist()) for name in ("train", "val", "test")}  # type: ignore[union-attr]
    champion = version_of(settings, registry, info, "old", tmp_path / "champion", sorted(before["train"]))
    info = prepared(400 + 4 * added)
    after = {name: set(read_split(PREPARED, name).digests.tolist()) for name in ("train", "val", "test")}  # type: ignore[union-attr]
    assert all(before[name] <= after[name] for name in before)
    assert sum(map(len, after.values())) == 400 + 4 * added
    challenger = version_of(settings, registry, info, "new", tmp_path / "challenger", sorted(after["train"]))
    judged = versions(registry, challenger, champion)
    found = collect(registry, judged, PREPARED)
    assert (found.left_out, found.images) == (0, len(after["test"]))

    prepared(400 + 4 * added, seed=1)
    test = set(read_split(PREPARED, "test").digests.tolist())  # type: ignore[union-attr]
    found = collect(registry, judged, PREPARED)
    assert found.left_out == len(test & (before["train"] | after["train"])) > 20
    assert found.evidence == () if len(test) - found.left_out < FEWEST_IMAGES else len(found.evidence) == 2


def test_a_version_is_not_measured_on_images_that_were_decoded_in_another_way(
    settings: Settings, prepared: DatasetInfo, tmp_path: Path
) -> None:
    model, padded = settings.models["resnet"], prepared.model_copy(update={"decoding": Decoding(fit="pad")})
    trained = TrainedModel(create_model(model, 3, 16).eval(), preprocess_for(model, padded))
    export_model(trained, "resnet", model, padded, np.zeros((2, 16, 16, 3), np.uint8), tmp_path / "model")
    loaded = load_exported(tmp_path / "model", "pets-classifier", 3, torch.device("cpu"))
    with pytest.raises(UserError, match=r"version 3 takes images with fit pad, channels rgb; those of tiny have fit"):
        predict_test(loaded, prepared, read_split(PREPARED, "test"))
    assert len(predict_test(loaded, padded, read_split(PREPARED, "test")).labels) == 24
