"""Accuracy, likelihood and calibration of replicates under every condition, and their files."""

from collections.abc import Callable
from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from torch import Tensor, nn

from factories import robustness_results
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PREPARED, evaluated, robustness, trained
from vit_vs_cnn.data.dataset import DatasetInfo, read_split
from vit_vs_cnn.evaluation.corruptions import CLEAN, CORRUPTIONS
from vit_vs_cnn.evaluation.results import read_evaluation
from vit_vs_cnn.evaluation.robustness import chosen_images, measure_robustness, read_robustness, write_robustness
from vit_vs_cnn.models.preprocess import Preprocess
from vit_vs_cnn.models.trained import TrainedModel
from vit_vs_cnn.stages import evaluate, train
from vit_vs_cnn.stages import robustness as stage
from vit_vs_cnn.tracking.run import read_ref
from vit_vs_cnn.tracking.store import tracking_uri
from vit_vs_cnn.training.results import choose_replicate

CPU = torch.device("cpu")


class ByBrightness(nn.Module):
    """Knows the three greys of the `prepared` data by their mean; an `offset` makes it err."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, pixels: Tensor) -> Tensor:
        mean = pixels.mean(dim=(1, 2, 3)) + self.offset
        return -20 * (mean[:, None] - torch.tensor([30.0, 120.0, 210.0]) / 255).abs()


def replicates() -> dict[int, Callable[[Tensor], Tensor]]:
    """Two, of which the second takes every grey for the next brighter one."""
    preprocess = Preprocess((0.0,) * 3, (1.0,) * 3, 16)
    models = {3: TrainedModel(ByBrightness(), preprocess), 5: TrainedModel(ByBrightness(0.25), preprocess)}
    return {seed: model.probabilities for seed, model in models.items()}


@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=6), share=st.floats(0.1, 1.0), seed=st.integers(0, 9))
def test_each_class_has_its_share_of_the_chosen_images(counts: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    count = max(1, int(share * len(labels)))
    chosen = chosen_images(labels, count, seed)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == count
    found = np.bincount(labels[chosen], minlength=len(counts))
    assert (np.abs(found - np.array(counts) * count / len(labels)) <= 1).all()
    assert (chosen == chosen_images(labels, count, seed)).all()


def test_fewer_images_than_asked_for_are_all_taken() -> None:
    assert chosen_images(np.array([1, 0, 1]), 1000, 0).tolist() == [0, 1, 2]


def test_every_condition_is_measured_for_every_replicate_on_the_same_images(prepared: DatasetInfo) -> None:
    test = read_split(PREPARED, "test")
    measured = measure_robustness(replicates(), test, prepared, 12, 8, CPU)
    conditions = 1 + sum(len(corruption.levels) for corruption in CORRUPTIONS)
    assert len(measured.conditions) == 2 * conditions
    assert set(measured.conditions["images"]) == {12}
    clean = measured.conditions[measured.conditions["corruption"] == CLEAN].set_index("seed")
    assert clean.loc[3, "accuracy"] == 1.0
    assert clean.loc[5, "accuracy"] == pytest.approx(1 / 3)
    assert (measured.conditions["accuracy"].to_numpy() == np.concatenate(list(measured.correct.values())).mean(1)).all()
    losses = np.concatenate(list(measured.losses.values())).mean(1, dtype=np.float64)
    assert measured.conditions["nll"].to_numpy() == pytest.approx(losses)
    means = measured.means()
    assert means["clean_accuracy"] == pytest.approx(2 / 3)
    # What it looks at, shuffling leaves as it is.
    assert means["patches_shuffled_accuracy"] == means["clean_accuracy"]
    assert means["brightness_accuracy"] < means["clean_accuracy"]
    assert {"accuracy", "nll", "ece"} <= means.keys()
    again = measure_robustness(replicates(), test, prepared, 12, 5, CPU)
    pd.testing.assert_frame_equal(again.conditions, measured.conditions)


def test_results_are_read_as_they_were_written(prepared: DatasetInfo, tmp_path: pytest.TempPathFactory) -> None:
    written = robustness_results({CLEAN: 3, "blur": 100}, seeds=(4, 7))
    write_robustness(robustness("vit"), written)
    found = read_robustness(robustness("vit"))
    pd.testing.assert_frame_equal(found.conditions, written.conditions, rtol=1e-5)
    assert (found.positions == written.positions).all()
    assert found.correct.keys() == written.correct.keys()
    for condition in written.correct:
        for one, other in zip(astuple(found)[2:], astuple(written)[2:], strict=True):
            assert one[condition].dtype == other[condition].dtype
            assert (one[condition] == other[condition]).all()
    assert found.at_all_severities("blur").shape == (2, 5 * len(found.positions))


def test_missing_and_damaged_results_name_the_stage_to_run(prepared: DatasetInfo) -> None:
    with pytest.raises(UserError, match=r"robustness/vit: no complete results here .*`dvc repro robustness@vit`"):
        read_robustness(robustness("vit"))
    write_robustness(robustness("vit"), robustness_results({}))
    (robustness("vit") / "images.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="no complete results here"):
        read_robustness(robustness("vit"))


@pytest.mark.usefixtures("unexported")
def test_the_stage_measures_a_trained_contestant(make_settings: Callable[..., Settings], prepared: DatasetInfo) -> None:
    settings = make_settings({"seeds": [0, 4], "robustness": {"images": 10}})
    for seed in settings.seeds:
        train.run(settings, "resnet", seed)
        evaluate.run(settings, "resnet", seed)
    stage.run(settings, "resnet")
    measured = read_robustness(robustness("resnet"))
    assert len(measured.positions) == 10
    for seed, right in zip(settings.seeds, measured.correct[CLEAN, 0], strict=True):
        predictions = read_evaluation(evaluated("resnet", seed)).predictions
        assert right.tolist() == predictions.correct[measured.positions].tolist()
    run_id = read_ref(trained("resnet", choose_replicate(settings, "resnet").seed)).run_id
    assert run_id is not None
    client = MlflowClient(tracking_uri())
    logged = client.get_run(run_id).data.metrics
    assert logged["robustness/blur_accuracy"] == pytest.approx(measured.means()["blur_accuracy"], abs=1e-5)
    files = {artifact.path for artifact in client.list_artifacts(run_id, "robustness")}
    assert files == {f"robustness/{name}" for name in ("conditions.csv", "images.parquet", "means.json")}


def test_too_few_images_are_a_users_error(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(UserError, match=r"robustness\.images"):
        make_settings({"robustness": {"images": 1}})
