"""The register stage, on results that tests make, and the model card."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from factories import CLASSES, contestant, cost, evaluation
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import TransientError, UserError
from vit_vs_cnn.core.paths import PREPARED, REGISTERED, trained
from vit_vs_cnn.data.dataset import DatasetInfo, write_info
from vit_vs_cnn.evaluation.contestants import Contestant, Replicate
from vit_vs_cnn.evaluation.results import Evaluation
from vit_vs_cnn.orchestration.artifacts import is_registered_elsewhere
from vit_vs_cnn.registry.audit import open_audit_log
from vit_vs_cnn.registry.registration import Looks, write_card
from vit_vs_cnn.registry.versions import Registry
from vit_vs_cnn.stages.register import run
from vit_vs_cnn.tracking.run import read_ref, start_run
from vit_vs_cnn.tracking.store import store_digest
from vit_vs_cnn.training.results import TrainingSummary

LINEAGE = {"mlflow.source.git.commit": "c0ffee" * 7, "git.dirty": "true", "params.digest": "d1" * 16}
SUMMARY = TrainingSummary(
    model="vit",
    timm="vit_tiny_patch16_224",
    parameters=12_345,
    trainable_parameters=12_345,
    epochs=3,
    best_epoch=2,
    val_accuracy=0.9,
    val_loss=0.5,
    seconds=10.0,
    seconds_per_epoch=3.0,
    images_per_second=100.0,
    device="CPU, 2 threads",
    precision="32-true",
    train_images=64,
    batch_size=16,
)


def measured(*evaluations: Evaluation) -> Contestant:
    """A contestant with so many replicates, of which the first is the chosen one."""
    replicates = tuple(
        Replicate(seed, SUMMARY.model_copy(update={"seed": seed}), pd.DataFrame(), of_seed)
        for seed, of_seed in enumerate(evaluations)
    )
    return Contestant("vit", replicates, replicates[0], cost())


@pytest.fixture
def results(settings: Settings, prepared: DatasetInfo) -> None:
    """Two trained and evaluated contestants, of which the ResNet is better by validation."""
    for name, val_accuracy in (("vit", 0.7), ("resnet", 0.8)):
        contestant(settings, name, errors=20, val_accuracy=val_accuracy)
        (trained(name, 0) / "model").mkdir()
        (trained(name, 0) / "model" / "MLmodel").write_text("flavors: {}\n")
        with start_run(settings, "train", name) as training:
            training.log_model(trained(name, 0) / "model", name, "image-classifier", {}, {}, step=1)
            training.write_ref(trained(name, 0))


def test_contestants_become_versions_and_the_better_by_validation_the_challenger(
    results: None, settings: Settings, prepared: DatasetInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings)
    assert json.loads((REGISTERED / "versions.json").read_text()) == {
        "name": "tiny-classifier",
        "versions": {"vit": 1, "resnet": 2},
        "challenger": "resnet",
        "reason": "version 2 (resnet) is challenger, the first one",
        "store": store_digest(),
    }
    assert "Version 2 (resnet) is challenger, the first one." in capsys.readouterr().out
    challenger = Registry("tiny-classifier").version("challenger")
    assert challenger.number == 2
    assert challenger.run_id == read_ref(trained("resnet", 0)).run_id
    assert challenger.contestant == "resnet"
    assert challenger.metric("val_accuracy") == 0.8
    assert challenger.metric("size_mb") == pytest.approx(12e-6)
    assert challenger.tags["data.test_digest"] == prepared.splits["test"].digest
    assert challenger.tags["timm"] == "resnet10t"
    assert challenger.metric("macro_f1") == pytest.approx(14 / 15, abs=0.01)
    assert challenger.card.startswith("# resnet for tiny\n")
    assert "No other version of the registry was measured on the test images before this one." in challenger.card


def test_the_challenger_is_the_best_by_the_metric_that_models_are_chosen_by(
    results: None, make_settings: Callable[..., Settings]
) -> None:
    for contestant_name, loss in (("vit", 0.4), ("resnet", 0.6)):
        path = trained(contestant_name, 0) / "training.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"val_loss": loss}))
    run(make_settings({"select_by": "nll"}))
    assert Registry("tiny-classifier").version("challenger").contestant == "vit"
    with pytest.raises(
        UserError, match="select_by: the training of vit did not record macro_f1 on val; train it again"
    ):
        run(make_settings({"select_by": "macro_f1"}))


def validated(settings: Settings, name: str, **changes: float) -> None:
    """Another training of a contestant, with these changes of its validation."""
    folder = trained(name, 0)
    path = folder / "training.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with start_run(settings, "train", name) as training:
        training.log_model(folder / "model", name, "image-classifier", {}, {}, step=1)
        training.write_ref(folder)


def challenger() -> int:
    return Registry("tiny-classifier").aliases()["challenger"]


def decisions() -> list[tuple[str, int | None, int | None]]:
    with open_audit_log(Registry("tiny-classifier")) as log:
        return [(found.action, found.previous_version, found.version) for found in log.decisions()]


@pytest.mark.parametrize(
    ("score", "moves", "said"),
    [
        (0.9, True, "is challenger: better than version 2 on the same validation images, 90.00% to 80.00%"),
        (0.8, False, "stays version 2: no better than version 2 on the same validation images, 80.00% to 80.00%"),
        (0.75, False, "stays version 2: no better than version 2 on the same validation images, 75.00% to 80.00%"),
    ],
)
def test_only_a_version_that_is_better_on_the_same_validation_images_becomes_challenger(
    results: None, settings: Settings, capsys: pytest.CaptureFixture[str], score: float, moves: bool, said: str
) -> None:
    run(settings)
    validated(settings, "vit", val_accuracy=score)
    validated(settings, "resnet", val_accuracy=0.5)
    run(settings)
    run(settings)
    assert said in capsys.readouterr().out
    assert challenger() == (3 if moves else 2)
    assert decisions() == [("registered", None, 2), ("registered" if moves else "passed over", 2, 3)]
    assert json.loads((REGISTERED / "versions.json").read_text())["challenger"] == ("vit" if moves else None)


def test_a_version_that_was_chosen_on_other_validation_images_is_passed_over_with_what_to_do(
    results: None, settings: Settings, prepared: DatasetInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings)
    others = prepared.splits | {"val": prepared.splits["val"].model_copy(update={"digest": "others"})}
    write_info(PREPARED, prepared.model_copy(update={"splits": others, "digest": "of other data"}))
    validated(settings, "vit", val_accuracy=0.99)
    run(settings)
    assert (
        "Challenger stays version 2: it was not chosen on the validation images of version 3; `vit-vs-cnn registry "
        "promote 3 --registry tiny-classifier` has the gate judge it all the same."
    ) in capsys.readouterr().out
    assert challenger() == 2


@pytest.mark.parametrize(("digest", "moves"), [("0123456789abcdef", True), ("of other data", False)])
def test_of_a_challenger_of_an_earlier_release_the_whole_data_set_has_to_be_the_same(
    results: None, settings: Settings, digest: str, moves: bool
) -> None:
    run(settings)
    registry = Registry("tiny-classifier")
    registry.client.delete_model_version_tag(registry.name, "2", "data.val_digest")
    registry.tag(2, {"data.digest": digest})
    validated(settings, "vit", val_accuracy=0.99)
    run(settings)
    assert challenger() == (3 if moves else 2)


def test_a_challenger_without_the_score_that_models_are_chosen_by_stays(
    results: None, make_settings: Callable[..., Settings], settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings)
    for name in ("vit", "resnet"):
        validated(settings, name, val_macro_f1=0.9)
    run(make_settings({"select_by": "macro_f1"}))
    assert "version 2 did not record macro_f1 on validation" in capsys.readouterr().out
    assert challenger() == 2


def test_versions_in_another_store_are_no_versions_here(
    results: None, settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_registered_elsewhere(project)
    run(settings)
    assert not is_registered_elsewhere(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/other.db")
    assert is_registered_elsewhere(project)
    # As recorded by release 0.1.
    (REGISTERED / "versions.json").write_text('{"name": "tiny-classifier", "versions": {}, "challenger": "vit"}')
    assert not is_registered_elsewhere(project)


def test_registering_the_same_models_again_makes_no_new_versions(results: None, settings: Settings) -> None:
    run(settings)
    run(settings)
    assert [version.number for version in Registry("tiny-classifier").versions()] == [2, 1]


def test_a_training_run_that_the_store_does_not_have_is_one_sentence(
    results: None, settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/other.db")
    with pytest.raises(
        UserError, match=r"the training run of vit is not in sqlite:.*/other\.db; run `vit-vs-cnn sync`"
    ):
        run(settings)


def test_an_unreachable_registry_is_retried_and_says_what_to_do(
    results: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(
        TransientError, match=r"cannot be used .* run `vit-vs-cnn sync` and then `dvc repro register`\."
    ):
        run(settings)


def test_a_card_says_what_was_measured(settings: Settings, prepared: DatasetInfo) -> None:
    made_up = evaluation([2, 5, 8])
    info = prepared.model_copy(update={"classes": CLASSES})
    card = write_card(settings, measured(made_up), info, LINEAGE, Looks(versions=1, decisions=4))
    low, high = 100 * made_up.metrics.accuracy_low, 100 * made_up.metrics.accuracy_high
    assert f"**99.50 %** (95 % interval {low:.2f} to {high:.2f} %)" in card
    assert "12,345 parameters" in card
    assert "1 other version was measured on them and 4 decisions of the gate looked at them." in card
    assert "- **NA**: recall 0.985, precision 1.000, 200 images\n" in card
    assert "|" not in card  # a table, whose cells touch in MLflow
    assert "NA taken for cat (3)." in card
    assert "git `c0ffeec0ffee` with uncommitted changes" in card
    assert "one image takes 1.0 ms (0.9 to 1.2 ms by round, p95 2.0 ms)" in card
    assert not re.search(r"\{[{%]|\n\n\n", card)


def test_a_card_has_the_calibration_error_before_and_after_with_intervals(
    settings: Settings, prepared: DatasetInfo
) -> None:
    made_up = evaluation([2, 5, 8])
    name = "uncalibrated_expected_calibration_error"
    before = {name: 0.2, f"{name}_low": 0.15, f"{name}_high": 0.25}
    info = prepared.model_copy(update={"classes": CLASSES})

    def card_of(**changes: object) -> str:
        changed = dataclasses.replace(made_up, metrics=made_up.metrics.model_copy(update=changes))
        return write_card(settings, measured(changed), info, LINEAGE, Looks(0, 0))

    error, low, high = (getattr(made_up.metrics, f"expected_calibration_error{end}") for end in ("", "_low", "_high"))
    card = card_of(**before)
    assert f"- expected calibration error: {error:.4f} (95 % interval {low:.4f} to {high:.4f})\n" in card
    assert "- the same before the temperature, 1: 0.2000 (95 % interval 0.1500 to 0.2500)\n" in card
    assert "- the same before the temperature, 1: 0.2000\n" in card_of(**before | {f"{name}_low": None})
    assert "before the temperature" not in card_of(**{name: None})


def test_a_card_of_a_refit_says_that_no_validation_figure_is_of_its_weights(
    settings: Settings, prepared: DatasetInfo
) -> None:
    info = prepared.model_copy(update={"classes": CLASSES})
    first = measured(evaluation([]))
    card = write_card(settings, first, info, LINEAGE, Looks(0, 0))
    assert "The epoch was chosen on val. No other version" in card
    assert "accuracy on val 90.00 %.\n" in card
    chosen = dataclasses.replace(first.chosen, summary=SUMMARY.model_copy(update={"refit": True}))
    card = write_card(settings, dataclasses.replace(first, chosen=chosen), info, LINEAGE, Looks(0, 0))
    assert "these weights are of a second one, on train and val (`train.refit`): no figure on val is theirs. No" in card
    assert "accuracy on val 90.00 % in the first training.\n" in card


def test_the_reason_for_a_challenger_says_which_scores_are_of_a_first_fit(
    results: None, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings)
    assert "refit" not in Registry("tiny-classifier").version(1).tags
    validated(settings, "vit", val_accuracy=0.9, refit=True)
    run(settings)
    assert "same validation images, 90.00% (of the first fit) to 80.00%." in capsys.readouterr().out
    assert Registry("tiny-classifier").version(3).tags["refit"] == "true"


def test_a_card_says_that_intervals_are_by_groups(settings: Settings, prepared: DatasetInfo) -> None:
    made_up = evaluation([2, 5, 8], groups=tuple(f"person {row // 6}" for row in range(600)))
    splits = {name: part.model_copy(update={"groups": 100}) for name, part in prepared.splits.items()}
    info = prepared.model_copy(update={"classes": CLASSES, "splits": splits})
    card = write_card(settings, measured(made_up), info, LINEAGE, Looks(0, 0))
    assert " %, by the 100 groups that they are of)." in card
    assert "24 test (of 100 groups) images." in card


def test_a_card_shows_what_a_name_holds_and_renders_none_of_it(settings: Settings, prepared: DatasetInfo) -> None:
    info = prepared.model_copy(update={"classes": CLASSES, "description": "<img src=x> | [a](b)\x1b"})
    card = write_card(settings, measured(evaluation([])), info, LINEAGE, Looks(versions=0, decisions=0))
    assert r"(&lt;img src=x&gt; \| \[a\](b)\\x1b)" in card


def test_of_many_classes_the_card_has_the_worst_and_stays_short(settings: Settings, prepared: DatasetInfo) -> None:
    names = tuple(f"a long name of class {n}" for n in range(1000))
    table = pd.DataFrame({"class": names, "precision": 0.5, "recall": range(1000), "f1": 0.5, "images": 10})
    confusion = np.zeros((1000, 1000), np.int64)
    many = dataclasses.replace(evaluation([]), classes=names, per_class=table, confusion=confusion)
    info = prepared.model_copy(update={"classes": names})
    card = write_card(settings, measured(many), info, LINEAGE, Looks(0, 0))
    assert "The 20 classes with the lowest recall:\n" in card
    assert "class 19**" in card
    assert "class 20**" not in card
    assert "It confuses no classes" in card
    assert len(card) < 5000


def test_of_several_trainings_the_best_by_validation_is_registered_and_says_how_far_the_others_lie_apart(
    make_settings: Callable[..., Settings], prepared: DatasetInfo
) -> None:
    settings = make_settings({"seeds": [5, 7]})
    for name in settings.models:
        for seed, errors, val_accuracy in ((5, 20, 0.7), (7, 26, 0.8)):
            contestant(settings, name, errors=errors, seed=seed, val_accuracy=val_accuracy)
            folder = trained(name, seed)
            (folder / "model").mkdir()
            (folder / "model" / "MLmodel").write_text("flavors: {}\n")
            with start_run(settings, "train", name) as training:
                training.log_model(folder / "model", name, "image-classifier", {}, {}, step=1)
                training.write_ref(folder)
    run(settings)
    run(make_settings({"seeds": [7]}))
    known = Registry("tiny-classifier").versions()
    assert [(version.number, version.metric("seeds")) for version in known] == [(2, 1), (1, 1)]
    run(settings)  # the same versions, of which other trainings lie around
    versions = Registry("tiny-classifier").versions()
    assert [version.seed for version in versions] == [7, 7]
    assert versions[0].metric("accuracy") == pytest.approx(274 / 300)
    assert versions[0].metric("accuracy_mean") == pytest.approx(277 / 300)
    assert versions[0].metric("seeds") == 2
    assert "This is the training with seed 7, the best by validation of 2 with different seeds." in versions[0].card
    assert "they reach 92.33 % on average, with a standard deviation of 1.41 points" in versions[0].card
