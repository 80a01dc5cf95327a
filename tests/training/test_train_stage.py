"""The train stage as a whole: kills, seeds, records, errors."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from ruamel.yaml import YAML
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from factories import TINY
from vit_vs_cnn.config.load import read_settings
from vit_vs_cnn.config.nested import merge
from vit_vs_cnn.config.recipe import AugmentSettings
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PREPARED, state_dir, trained
from vit_vs_cnn.data import dataset as prepared_module
from vit_vs_cnn.data.augment.batch import augment
from vit_vs_cnn.data.dataset import DIGESTS, DatasetInfo, read_split
from vit_vs_cnn.evaluation.metrics import negative_log_likelihood
from vit_vs_cnn.models.temperature import fit_temperature, softmax
from vit_vs_cnn.models.trained import load_trained
from vit_vs_cnn.registry.versions import Registry, Version
from vit_vs_cnn.stages import train
from vit_vs_cnn.tracking.delivery import sync
from vit_vs_cnn.tracking.run import read_ref
from vit_vs_cnn.tracking.store import tracking_uri
from vit_vs_cnn.training.results import read_summary
from vit_vs_cnn.training.validation import Scores

Make = Callable[..., Settings]


def weights(name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    return load_file(trained(name, seed) / "weights.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_training_learns_and_leaves_everything_that_later_stages_need(
    settings: Settings, prepared: DatasetInfo
) -> None:
    train.run(settings, "resnet", 0)
    folder = trained("resnet", 0)
    summary = json.loads((folder / "training.json").read_text())
    history = list(csv.DictReader((folder / "history.csv").open()))
    assert [row["epoch"] for row in history] == ["1", "2"]
    assert summary["best_epoch"] == max((1, 2), key=lambda epoch: float(history[epoch - 1]["val_accuracy"]))
    assert float(history[-1]["learning_rate"]) == settings.recipe.schedule.min_lr
    assert float(history[-1]["train_loss"]) < float(history[0]["train_loss"])
    assert (folder / "model" / "MLmodel").is_file()
    assert not list((state_dir() / "checkpoints").glob("*/checkpoint.pt"))


@pytest.mark.usefixtures("unexported")
def test_weights_of_the_best_and_of_the_last_epoch_are_kept(
    make_settings: Make, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(accuracy: float) -> Scores:
        return Scores(loss=1.0, accuracy=accuracy, balanced_accuracy=0.5, macro_f1=0.5, top_share=0.4)

    folder = trained("vit", 0)
    for ema_decay in (None, 0.5):
        kept = []
        for accuracies in ((0.5, 0.9, 0.6), (0.5, 0.6, 0.9)):
            script = iter(map(scores, accuracies))
            monkeypatch.setattr("vit_vs_cnn.training.loop.validate", lambda *_, script=script: next(script))
            train.run(make_settings({"train": {"epochs": 3}, "recipe": {"ema_decay": ema_decay}}), "vit", 0)
            kept.append([load_file(folder / f"{name}.safetensors") for name in ("weights", "last")])
        assert same(kept[0][1], kept[1][1])
        assert same(kept[1][0], kept[1][1])
        assert not same(kept[0][0], kept[0][1])


@pytest.mark.usefixtures("unexported")
def test_a_refit_is_recorded_beside_the_training_that_chose_its_epoch(
    make_settings: Make, prepared: DatasetInfo
) -> None:
    settings = make_settings({"train": {"epochs": 4, "refit": True}})
    plain = settings.model_copy(update={"train": settings.train.model_copy(update={"refit": False})})
    train.run(plain, "resnet", 0)
    folder = trained("resnet", 0)
    chosen = json.loads((folder / "training.json").read_text())
    train.run(settings, "resnet", 0)
    summary = json.loads((folder / "training.json").read_text())
    assert (summary["refit"], summary["train_images"], chosen["train_images"]) == (True, 88, 64)
    same_as_before = ("best_epoch", "epochs", "val_accuracy", "val_loss", "val_macro_f1")
    assert [summary[key] for key in same_as_before] == [chosen[key] for key in same_as_before]
    client = MlflowClient(tracking_uri())
    run_id = read_ref(folder).run_id
    assert run_id is not None
    steps = [metric.step for metric in client.get_metric_history(run_id, "refit/loss")]
    assert steps == list(range(1, summary["best_epoch"] + 1))
    assert [metric.step for metric in client.get_metric_history(run_id, "val/loss")] == [1, 2, 3, 4]
    assert not list((state_dir() / "checkpoints").glob("*"))


def test_the_run_in_mlflow_has_parameters_curves_data_model_and_lineage(
    settings: Settings, prepared: DatasetInfo
) -> None:
    train.run(settings, "vit", 0)
    client = MlflowClient(tracking_uri())
    ref = read_ref(trained("vit", 0))
    assert ref.run_id is not None
    run = client.get_run(ref.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe.optimizer.lr"] == "0.002"
    assert [metric.step for metric in client.get_metric_history(ref.run_id, "val/accuracy")] == [1, 2]
    assert run.data.metrics.keys() >= {
        "train/loss", "train/accuracy", "train/learning_rate", "val/loss", "val/accuracy",
        "time/elapsed_seconds", "time/epoch_seconds", "time/images_per_second",
        "best/val_accuracy", "best/val_loss", "best/epoch", "best/temperature",
        "cost/parameters", "cost/seconds_per_epoch",
        "system/cpu_utilization_percentage", "system/process_memory_megabytes",
    }  # fmt: skip
    assert {used.dataset.name for used in run.inputs.dataset_inputs} == {"tiny-train", "tiny-val"}
    assert {"git.dirty", "params.digest", "data.digest", "device"} <= run.data.tags.keys()
    assert {artifact.path for artifact in client.list_artifacts(ref.run_id, "lineage")} >= {
        "lineage/params.yaml",
        "lineage/packages.txt",
    }
    model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    assert model.source_run_id == ref.run_id
    assert model.status == "READY"


def test_a_model_that_smoothed_labels_make_unsure_says_what_it_knows(
    make_settings: Make, prepared: DatasetInfo
) -> None:
    smoothed: dict[str, Any] = {"train": {"epochs": 8}, "recipe": {"label_smoothing": 0.2}}
    settings, val = make_settings(smoothed), read_split(PREPARED, "val")
    train.run(settings, "resnet", 0)
    calibrated = load_trained(settings, "resnet", 0, prepared)
    temperature = read_summary(trained("resnet", 0)).temperature
    assert temperature == pytest.approx(calibrated.temperature.item()) != 1.0
    logits = calibrated.logits(torch.from_numpy(val.images.copy())).detach().numpy()
    assert temperature == pytest.approx(fit_temperature(logits, val.labels), rel=1e-4)
    exported = mlflow.pyfunc.load_model(str(trained("resnet", 0) / "model")).predict(val.images)
    np.testing.assert_allclose(exported, softmax(logits, temperature), atol=1e-6)
    assert negative_log_likelihood(exported, val.labels) < negative_log_likelihood(softmax(logits), val.labels)
    train.run(make_settings(smoothed | {"train": {"epochs": 8, "calibrate": False}}), "resnet", 0)
    plain = load_trained(settings, "resnet", 0, prepared)
    assert plain.temperature.item() == 1.0
    assert same(plain.network.state_dict(), calibrated.network.state_dict())


@pytest.mark.usefixtures("unexported")
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    make_settings: Make, prepared: DatasetInfo
) -> None:
    # Dropout, mixup and the moving average all draw or remember: they must not break it.
    augment = {"alternating_flip": True, "mixup": 0.5, "cutmix": 0.5, "erase": 0.5}
    overlay: dict[str, Any] = {
        "recipe": {"augment": augment, "ema_decay": 0.9},
        "models": {"vit": {"args": {"proj_drop_rate": 0.1}}},
    }
    train.run(make_settings(overlay), "vit", 0)
    first = weights("vit")
    train.run(make_settings(overlay), "vit", 0)
    assert same(first, weights("vit"))
    train.run(make_settings(overlay | {"seeds": [1]}), "vit", 1)
    assert not same(first, weights("vit", 1))


@pytest.mark.usefixtures("unexported")
def test_an_alternating_flip_alternates_from_epoch_to_epoch(
    make_settings: Make, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    flips = defaultdict(list)

    def watched(
        images: torch.Tensor, settings: AugmentSettings, generator: torch.Generator, mirrored: torch.Tensor
    ) -> torch.Tensor:
        for image, flip in zip(images, mirrored.tolist(), strict=True):
            flips[image.numpy().tobytes()].append(flip)
        return augment(images, settings, generator, mirrored)

    monkeypatch.setattr("vit_vs_cnn.training.loop.augment", watched)
    train.run(make_settings({"train": {"epochs": 3}, "recipe": {"augment": {"alternating_flip": True}}}), "resnet", 0)
    assert set(map(tuple, flips.values())) == {(True, False, True), (False, True, False)}


TRAIN_IN_A_PROCESS = (
    "import sys; from vit_vs_cnn.cli import program; sys.argv = ['vit-vs-cnn', 'train', 'vit']; program()"
)


@pytest.mark.usefixtures("unexported")
def test_killed_at_random_moments_training_ends_with_the_same_weights(prepared: DatasetInfo, project: Path) -> None:
    overlay = {
        "train": {"epochs": 8},
        "recipe": {"augment": {"alternating_flip": True, "mixup": 0.3}, "ema_decay": 0.9, "optimizer": {"lr": 0.01}},
        "models": {"vit": {"args": {"proj_drop_rate": 0.1}}},
    }
    YAML().dump(merge(TINY, overlay), project / "params.yaml")
    command = [sys.executable, "-c", TRAIN_IN_A_PROCESS]
    settings = read_settings(project / "params.yaml")
    train.run(settings, "vit", 0)
    undisturbed = weights("vit")
    (trained("vit", 0) / "weights.safetensors").unlink()
    draw = random.Random(0)
    kills = 0
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        checkpoints = state_dir() / "checkpoints"
        deadline = time.monotonic() + 300
        # Killed after it made a step of progress, at a random moment.
        before = {path: path.stat().st_mtime_ns for path in checkpoints.glob("*/checkpoint.pt")}
        while process.poll() is None and time.monotonic() < deadline:
            now = {path: path.stat().st_mtime_ns for path in checkpoints.glob("*/checkpoint.pt")}
            if now != before:
                break
            time.sleep(0.005)
        time.sleep(draw.random() * 0.05)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    train.run(settings, "vit", 0)
    assert kills >= 1
    assert same(undisturbed, weights("vit"))
    client = MlflowClient(tracking_uri())
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]


@pytest.mark.usefixtures("unexported")
def test_training_completes_while_the_store_is_unreachable_and_sync_delivers_all(
    settings: Settings, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    train.run(settings, "vit", 0)
    assert (trained("vit", 0) / "weights.safetensors").is_file()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync() == (1, 0)
    client = MlflowClient(tracking_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "val/loss")] == [1, 2]
    assert run.outputs.model_outputs


@pytest.mark.usefixtures("unexported")
def test_the_digests_of_the_training_images_are_in_its_run(make_settings: Make, prepared: DatasetInfo) -> None:
    digests = {"train": np.arange(64, dtype=np.uint64), "val": np.arange(64, 88, dtype=np.uint64)}
    for split, values in digests.items():
        np.save(PREPARED / split / DIGESTS, values)
    registry = Registry("tiny-classifier")
    for refit, expected in ((False, range(64)), (True, range(88))):
        train.run(make_settings({"train": {"epochs": 1, "refit": refit}}), "resnet", 0)
        run_id = read_ref(trained("resnet", 0)).run_id
        assert run_id is not None
        version = Version(number=1, run_id=run_id, created_ms=0, aliases=(), tags={}, card="")
        found = registry.trained_on(version)
        assert found is not None
        assert sorted(found.tolist()) == list(expected)


@pytest.mark.usefixtures("unexported")
def test_training_opens_train_and_val_only(
    settings: Settings, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    load = np.load
    monkeypatch.setattr(prepared_module.np, "load", lambda path, **more: (opened.append(path), load(path, **more))[1])
    train.run(settings, "resnet", 0)
    assert {path.parent.name for path in opened} == {"train", "val"}


@pytest.mark.usefixtures("unexported")
def test_patience_ends_a_training_that_gets_no_better(make_settings: Make, prepared: DatasetInfo) -> None:
    overlay = {"train": {"epochs": 30, "patience": 2}, "recipe": {"optimizer": {"lr": 1e-12}}}
    train.run(make_settings(overlay), "vit", 0)
    summary = json.loads((trained("vit", 0) / "training.json").read_text())
    assert summary["epochs"] < 30
    assert summary["epochs"] - summary["best_epoch"] == 2


@pytest.mark.parametrize("clip_grad", [None, 1.0])
@pytest.mark.usefixtures("unexported")
def test_a_loss_that_explodes_is_one_sentence_and_a_failed_run(
    make_settings: Make, prepared: DatasetInfo, clip_grad: float | None
) -> None:
    overlay = {"recipe": {"optimizer": {"name": "sgd", "lr": 1e30}, "clip_grad": clip_grad}}
    with pytest.raises(UserError, match=r"models\.vit: the loss is not finite any more in epoch 1; lower"):
        train.run(make_settings(overlay), "vit", 0)
    client = MlflowClient(tracking_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert run.info.status == "FAILED"
    assert "not finite" in run.data.tags["failure"]


@pytest.mark.usefixtures("unexported")
def test_an_unknown_optimizer_is_one_sentence(make_settings: Make, prepared: DatasetInfo) -> None:
    with pytest.raises(UserError, match=r"models\.vit\.recipe\.optimizer\.name: timm has no optimizer 'adamz'"):
        train.run(make_settings({"recipe": {"optimizer": {"name": "adamz"}}}), "vit", 0)


@pytest.mark.usefixtures("unexported")
def test_cuda_asked_for_where_there_is_none_is_one_sentence(
    make_settings: Make, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"train\.device: 'cuda' is set and PyTorch sees no CUDA device"):
        train.run(make_settings({"train": {"device": "cuda"}}), "vit", 0)


@pytest.mark.usefixtures("unexported")
def test_memory_that_does_not_suffice_is_one_sentence(
    settings: Settings, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("vit_vs_cnn.training.loop.Fabric.backward", full)
    with pytest.raises(UserError, match=r"lower models\.vit\.recipe\.batch_size or models\.vit\.input_size"):
        train.run(settings, "vit", 0)


@pytest.mark.usefixtures("unexported")
def test_a_batch_too_large_for_memory_trains_in_parts_to_the_same_result(
    make_settings: Make, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings({"recipe": {"augment": {"mixup": 0.5}, "label_smoothing": 0.1}})
    train.run(settings, "vit", 0)
    whole, history = weights("vit"), (trained("vit", 0) / "history.csv").read_text()
    forward, sizes = VisionTransformer.forward, []

    def small(network: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
        if network.training and len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(images))
        return forward(network, images)

    monkeypatch.setattr(VisionTransformer, "forward", small)
    capsys.readouterr()
    train.run(settings, "vit", 0)
    # 16 do not fit, nor do 8: parts of 4, found once.
    assert sizes[:5] == [4, 4, 4, 4, 4]
    errors = capsys.readouterr().err
    assert (
        errors.count("memory does not suffice on cpu for 16 images at once; gradients are summed over parts of 4") == 1
    )
    assert errors.count("memory does not suffice") == 2
    in_parts = weights("vit")
    assert all(torch.allclose(whole[name], in_parts[name], atol=1e-5) for name in whole)
    again = list(csv.DictReader((trained("vit", 0) / "history.csv").open()))
    for before, after in zip(csv.DictReader(history.splitlines()), again, strict=True):
        assert float(after["train_loss"]) == pytest.approx(float(before["train_loss"]), abs=1e-5)


@pytest.mark.usefixtures("unexported")
def test_tuned_values_are_what_is_trained_with(settings: Settings, prepared: DatasetInfo) -> None:
    Path("tuned").mkdir()
    Path("tuned/vit.yaml").write_text("recipe: {optimizer: {lr: 0.25}}\n")
    train.run(settings, "vit", 0)
    run_id = read_ref(trained("vit", 0)).run_id
    assert run_id is not None
    assert MlflowClient(tracking_uri()).get_run(run_id).data.params["recipe.optimizer.lr"] == "0.25"
