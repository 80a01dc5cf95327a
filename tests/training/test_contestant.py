"""What is announced before a training, and what a training changes, keeps and resumes."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from timm.models.vision_transformer import VisionTransformer

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PREPARED, state_dir
from vit_vs_cnn.data.dataset import DatasetInfo, Split, read_split
from vit_vs_cnn.training.checkpoint import open_checkpoint
from vit_vs_cnn.training.contestant import announce, prepare_contestant, train_contestant
from vit_vs_cnn.training.results import Epoch
from vit_vs_cnn.training.setup import Plan, TrainingJob
from vit_vs_cnn.training.validation import Scores

Make = Callable[..., Settings]


def job(settings: Settings, info: DatasetInfo) -> TrainingJob:
    return prepare_contestant(settings, "vit", info, (read_split(PREPARED, "train"), read_split(PREPARED, "val")))


def test_a_training_is_announced_with_what_it_runs_on_and_an_estimate_that_nothing_remembers(
    make_settings: Make, prepared: DatasetInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(job(make_settings(), prepared))
    said = capsys.readouterr()
    assert said.out.startswith("train vit seed 0: vit_tiny_patch16_224, 64 images, 2 epochs, 32-true on CPU, ")
    assert re.search(r"on CPU, \d+ threads?: about 0 s\n$", said.out)
    assert not said.err
    assert not list(state_dir().iterdir())
    announce(job(make_settings({"train": {"precision": "bf16-mixed", "compile": True}}), prepared))
    assert "2 epochs, bf16-mixed, compiled, on CPU" in capsys.readouterr().out


def test_where_a_cpu_would_take_hours_a_preset_that_would_not_is_named(
    make_settings: Make, prepared: DatasetInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(job(make_settings({"train": {"epochs": 10**9}}), prepared))
    said = capsys.readouterr()
    assert said.out.endswith(" h\n")
    assert said.err.startswith("warning: that is long for a CPU: fewer epochs (train.epochs)")
    assert "`--preset cpu`" in said.err


def test_an_estimate_that_finds_too_little_memory_leaves_the_training_to_say_so(
    make_settings: Make, prepared: DatasetInfo, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(VisionTransformer, "forward", full)
    announce(job(make_settings(), prepared))
    assert re.search(r"on CPU, \d+ threads?\n$", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("timm", "args", "head"),
    [
        ("resnet10t", {"channels": [8, 8, 16, 16], "stem_width": 8}, {"fc.weight", "fc.bias"}),
        ("airbench94", {"widths": [8, 8, 8]}, {"head.weight"}),  # its statistics would be recomputed
    ],
)
def test_a_frozen_backbone_does_not_change_at_all(
    make_settings: Make, prepared: DatasetInfo, timm: str, args: dict[str, list[int]], head: set[str]
) -> None:
    overlay = {"models": {"frozen": {"timm": timm, "args": args, "freeze_backbone": True}}}
    splits = (read_split(PREPARED, "train"), read_split(PREPARED, "val"))
    training_job = prepare_contestant(make_settings(overlay), "frozen", prepared, splits, quiet=True)
    before = {name: tensor.clone() for name, tensor in training_job.network.state_dict().items()}
    with open_checkpoint("frozen") as checkpoint:
        after = train_contestant(training_job, checkpoint, lambda _: None).model.network.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == head


def test_a_training_in_fp16_resumes_with_the_scale_of_its_gradients(
    make_settings: Make, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fabric_in_fp16(_: Plan) -> Fabric:
        # So large a scale that gradients overflow, and it is halved, in the first epoch. By itself, Fabric takes bf16
        # in place of fp16 on a CPU.
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
        fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
        fabric.launch()
        return fabric

    monkeypatch.setattr("vit_vs_cnn.training.contestant.make_fabric", fabric_in_fp16)
    settings = make_settings({"train": {"epochs": 3}})
    with open_checkpoint("whole") as checkpoint:
        whole = train_contestant(job(settings, prepared), checkpoint, lambda _: None).model.network.state_dict()

    class StopError(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        raise StopError

    with pytest.raises(StopError), open_checkpoint("stopped") as checkpoint:
        train_contestant(job(settings, prepared), checkpoint, stop)
    with open_checkpoint("stopped") as checkpoint:
        resumed = train_contestant(job(settings, prepared), checkpoint, lambda _: None).model.network.state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def scripted(monkeypatch: pytest.MonkeyPatch, *scores: Scores) -> None:
    """Let validation give these scores, epoch by epoch."""
    script = iter(scores)
    monkeypatch.setattr("vit_vs_cnn.training.loop.validate", lambda *_: next(script))


@pytest.mark.parametrize(
    ("select_by", "best"), [("accuracy", 1), ("balanced_accuracy", 2), ("macro_f1", 3), ("nll", 4)]
)
def test_the_epoch_is_chosen_by_what_the_settings_say(
    make_settings: Make, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch, select_by: str, best: int
) -> None:
    scripted(
        monkeypatch,
        Scores(loss=0.9, accuracy=0.8, balanced_accuracy=0.5, macro_f1=0.5, top_share=0.4),
        Scores(loss=0.8, accuracy=0.7, balanced_accuracy=0.7, macro_f1=0.6, top_share=0.4),
        Scores(loss=0.7, accuracy=0.7, balanced_accuracy=0.6, macro_f1=0.7, top_share=0.4),
        Scores(loss=0.6, accuracy=0.7, balanced_accuracy=0.6, macro_f1=0.6, top_share=0.4),
    )
    overlay = {"select_by": select_by, "train": {"epochs": 4}}
    with open_checkpoint("chosen") as checkpoint:
        training = train_contestant(job(make_settings(overlay), prepared), checkpoint, lambda _: None)
    assert (training.summary.best_epoch, training.summary.select_by) == (best, select_by)
    assert training.summary.val_macro_f1 == training.history[best - 1].val_macro_f1


def test_a_refit_is_the_training_on_train_and_val_up_to_the_best_epoch_and_resumes(
    make_settings: Make, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings({"train": {"epochs": 3}})
    scores = [Scores(1.0, accuracy, 0.5, 0.5, 0.4) for accuracy in (0.5, 0.9, 0.6)]
    plain = job(settings, prepared)
    images, labels = (
        np.concatenate([getattr(split, part) for split in (plain.train, plain.val)]) for part in ("images", "labels")
    )
    scripted(monkeypatch, *scores)
    with open_checkpoint("by-hand") as checkpoint:
        joined = replace(plain, train=Split(images, labels, plain.train.names + plain.val.names))
        by_hand = train_contestant(joined, checkpoint, lambda _: None)
    scripted(monkeypatch, *scores, *scores)

    class StopError(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        raise StopError

    refitting = make_settings({"train": {"epochs": 3, "refit": True}})
    with pytest.raises(StopError), open_checkpoint("refit") as checkpoint:
        train_contestant(job(refitting, prepared), checkpoint, lambda _: None, stop)
    epochs: list[int] = []
    with open_checkpoint("refit") as checkpoint:
        refit = train_contestant(
            job(refitting, prepared), checkpoint, lambda _: None, lambda epoch: epochs.append(epoch.epoch)
        )
    assert epochs == [2]
    assert (refit.summary.refit, refit.summary.best_epoch, refit.summary.train_images) == (True, 2, 88)
    assert [row.epoch for row in refit.history] == [1, 2, 3]
    for name, tensor in by_hand.model.network.state_dict().items():
        assert torch.equal(refit.model.network.state_dict()[name], tensor)
        assert torch.equal(refit.last.network.state_dict()[name], tensor)
