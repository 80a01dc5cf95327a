"""Files that are empty, garbage, cut off or folders, as a crash or a full disk leaves them: a sentence, or restarts.

Databases are in tests/core/test_sqlite.py.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dvc.repo import Repo
from safetensors.torch import save_file

from vit_vs_cnn.config.schema import ModelSettings, Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PREPARED, trained
from vit_vs_cnn.data.dataset import DatasetInfo, read_split
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.export import load_trained_program
from vit_vs_cnn.models.trained import TrainedModel, load_trained, preprocess_for, save_weights
from vit_vs_cnn.models.weights import load_pretrained_weights
from vit_vs_cnn.orchestration.dag import read_dag
from vit_vs_cnn.tracking.run import read_ref
from vit_vs_cnn.training.checkpoint import Checkpoint
from vit_vs_cnn.training.contestant import prepare_contestant, train_contestant
from vit_vs_cnn.training.results import Epoch

pytest_plugins = ["harness.serving_fixtures"]


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"\x91\xff\0no such format" * 50)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


Damage = Callable[[Path], None]
damaged = pytest.mark.parametrize("damage", [empty, garbage, cut_off, a_folder])


@damaged
def test_run_json(tmp_path: Path, damage: Damage) -> None:
    (tmp_path / "run.json").write_text('{"key": "0123", "run_id": null, "experiment": "tiny", "name": "train-vit"}')
    assert read_ref(tmp_path).key == "0123"
    damage(tmp_path / "run.json")
    with pytest.raises(UserError, match=r"run\.json: (is damaged|cannot be read \(.*\)); `dvc checkout --force"):
        read_ref(tmp_path)


@damaged
def test_trained_weights(settings: Settings, prepared: DatasetInfo, damage: Damage) -> None:
    trained("vit", 0).mkdir(parents=True)
    path = trained("vit", 0) / "weights.safetensors"
    model = settings.models["vit"]
    save_weights(TrainedModel(create_model(model, 3, 16), preprocess_for(model, prepared)), path)
    load_trained(settings, "vit", 0, prepared)
    damage(path)
    with pytest.raises(UserError, match=r"weights\.safetensors: .*`dvc (checkout|repro) .*train@vit-0`"):
        load_trained(settings, "vit", 0, prepared)


@damaged
def test_a_file_of_pretrained_weights(tmp_path: Path, damage: Damage) -> None:
    path = tmp_path / "start.safetensors"
    model = ModelSettings(timm="resnet10t", weights=str(path))
    network = create_model(model, 3, 32)
    save_file(network.state_dict(), path)
    load_pretrained_weights(network, model, "models.x")
    damage(path)
    with pytest.raises(UserError, match=r"models\.x\.weights: .*start\.safetensors is (a folder; name|not a readable)"):
        load_pretrained_weights(network, model, "models.x")


@damaged
def test_an_exported_model(exported: tuple[Path, dict[int, TrainedModel]], tmp_path: Path, damage: Damage) -> None:
    shutil.copytree(exported[0] / "1", tmp_path / "trained/vit/7/model")
    damage(tmp_path / "trained/vit/7/model/data/model.pt2")
    with pytest.raises(UserError, match=r"the exported model does not load .*`dvc repro --force train@vit-7`"):
        load_trained_program(tmp_path / "trained/vit/7", torch.device("cpu"))


@pytest.mark.parametrize("damage", [empty, garbage, a_folder])
def test_dvc_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    (tmp_path / "source").write_text("1")
    stage = "cmd: date +%N > made; echo >> ran\n    deps: [source]\n    outs: [made]\n"
    (tmp_path / "dvc.yaml").write_text(f"stages:\n  once:\n    {stage}")
    with Repo.init(str(tmp_path)) as repo:
        repo.reproduce()
    made = (tmp_path / "made").read_text()
    damage(tmp_path / "dvc.lock")
    with pytest.raises(UserError, match=r"dvc\.lock'?.*; delete it, or restore it with git"):
        read_dag(tmp_path)
    shutil.rmtree(tmp_path / "dvc.lock", ignore_errors=True)
    (tmp_path / "dvc.lock").unlink(missing_ok=True)
    (tmp_path / "made").unlink()
    with Repo(str(tmp_path)) as repo:
        repo.reproduce()
    # As the sentence says: what the stage made was found in the cache.
    assert (tmp_path / "made").read_text() == made
    assert (tmp_path / "ran").read_text() == "\n"


class KilledError(Exception):
    pass


@damaged
@pytest.mark.parametrize("both", [False, True], ids=["the last", "both"])
def test_a_checkpoint(
    make_settings: Callable[..., Settings],
    prepared: DatasetInfo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Damage,
    both: bool,
) -> None:
    settings = make_settings({"train": {"epochs": 4}})
    splits = (read_split(PREPARED, "train"), read_split(PREPARED, "val"))
    killed_after, epochs = 0, list[int]()

    def on_epoch(epoch: Epoch) -> None:
        epochs.append(epoch.epoch)
        if epoch.epoch == killed_after:
            raise KilledError

    def finish(name: str) -> dict[str, torch.Tensor]:
        (tmp_path / name).mkdir(exist_ok=True)
        job = prepare_contestant(settings, "vit", prepared, splits, quiet=True)
        return train_contestant(job, Checkpoint(tmp_path / name), on_epoch).last.state_dict()

    undisturbed = finish("undisturbed")
    killed_after = 3
    with pytest.raises(KilledError):
        finish("killed")
    damage(tmp_path / "killed/checkpoint.pt")
    if both:
        damage(tmp_path / "killed/checkpoint.earlier.pt")
    killed_after = 0
    again = finish("killed")
    assert capsys.readouterr().err.count("is damaged") == 1 + both
    assert epochs == [1, 2, 3, 4, 1, 2, 3, *([1, 2] if both else []), 3, 4]
    assert all(torch.equal(undisturbed[name], again[name]) for name in undisturbed)


def test_the_key_of_a_run(tmp_path: Path) -> None:
    key = Checkpoint(tmp_path).run_key()
    assert Checkpoint(tmp_path).run_key() == key
    for damage in (cut_off, garbage, empty, a_folder):
        damage(tmp_path / "run_key")
        other = Checkpoint(tmp_path).run_key()
        assert len(other) == len(key)
        assert other != key
        assert Checkpoint(tmp_path).run_key() == other
