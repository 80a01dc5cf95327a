"""What makes one training another, and so begins a new checkpoint."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_model
from torch import nn

import vit_vs_cnn
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import TransientError
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.data.dataset import DatasetInfo, read_split
from vit_vs_cnn.training import checkpoint
from vit_vs_cnn.training.checkpoint import code_digest, fingerprint, open_checkpoint
from vit_vs_cnn.training.contestant import prepare_contestant

Make = Callable[..., Settings]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package's files, which the digest is taken of."""
    copy = shutil.copytree(Path(vit_vs_cnn.__file__).parent, tmp_path / "vit_vs_cnn")
    monkeypatch.setattr(checkpoint, "__file__", str(copy / "training/checkpoint.py"))
    return copy


@pytest.mark.parametrize(
    "module",
    ["config/schema.py", "data/augment/mix.py", "data/loader.py", "models/build.py", "training/loop.py"],
)
def test_code_that_decides_a_training_changes_the_digest(package: Path, module: str) -> None:
    before = code_digest()
    (package / module).write_text((package / module).read_text() + "\n# a change\n")
    assert code_digest() != before


def test_code_that_decides_no_training_does_not(package: Path) -> None:
    before = code_digest()
    (package / "report/style.py").write_text("# nothing\n")
    assert code_digest() == before
    assert code_digest("report/style.py") != before


def test_a_pattern_that_matches_no_file_fails(package: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tuning/no_such\.py: matches no file of"):
        code_digest("tuning/no_such.py")
    shutil.rmtree(package / "data/augment")
    with pytest.raises(FileNotFoundError, match=r"data/augment/\*\.py: matches no file of"):
        code_digest()


def test_the_fingerprint_has_what_a_training_runs_on_and_not_how_it_was_chosen(
    make_settings: Make, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vit_vs_cnn.training.setup.cpu_has_bf16", lambda: True)
    splits = (read_split(PREPARED, "train"), read_split(PREPARED, "val"))

    def of(**train: Any) -> str:
        return fingerprint(prepare_contestant(make_settings({"train": train}), "vit", prepared, splits))

    assert of(precision="auto") == of(precision="bf16-mixed") == of(precision="bf16-mixed", device="auto")
    changes: list[dict[str, Any]] = [
        {"precision": "bf16-mixed"},
        {"compile": True},
        {"epochs": 3},
        {"patience": 2},
        {"devices": 2},
        {"refit": True},
    ]
    different = [of(), *(of(**change) for change in changes)]
    assert len(set(different)) == len(different)


def test_a_checkpoint_is_held_by_one_process_and_removed_when_the_training_is_complete(project: Path) -> None:
    with open_checkpoint("one") as checkpoint:
        key = checkpoint.run_key()
        with pytest.raises(TransientError, match="another process is training exactly this"), open_checkpoint("one"):
            pass
    assert not checkpoint.folder.exists()
    with pytest.raises(AssertionError), open_checkpoint("one") as checkpoint:
        assert checkpoint.run_key() == key  # another one: this training is new
    with open_checkpoint("one", keep=True) as again:
        assert again.run_key() == checkpoint.run_key() != key
    assert checkpoint.folder.is_dir()
    assert not list(checkpoint.folder.parent.glob("*.lock"))


def test_what_chooses_the_epoch_makes_another_training(make_settings: Make, prepared: DatasetInfo) -> None:
    splits = (read_split(PREPARED, "train"), read_split(PREPARED, "val"))
    by_accuracy, by_f1 = (
        fingerprint(prepare_contestant(make_settings({"select_by": score}), "vit", prepared, splits))
        for score in ("accuracy", "macro_f1")
    )
    assert by_accuracy != by_f1


def test_weights_of_another_content_make_another_training(make_settings: Make, prepared: DatasetInfo) -> None:
    splits = (read_split(PREPARED, "train"), read_split(PREPARED, "val"))
    plain = prepare_contestant(make_settings(), "vit", prepared, splits)
    settings = make_settings({"models": {"vit": {"weights": "start.safetensors"}}})
    found = []
    for value in (0.0, 1.0):
        nn.init.constant_(plain.network.get_classifier().bias, value)
        save_model(plain.network, "start.safetensors")
        found.append(fingerprint(prepare_contestant(settings, "vit", prepared, splits)))
    assert len({fingerprint(plain), *found}) == 3
