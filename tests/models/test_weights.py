from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.weights import load_pretrained_weights, normalisation

VIT = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}


def write_weights(path: Path, image_size: int = 32, num_classes: int = 10) -> dict[str, torch.Tensor]:
    state = create_model(ModelSettings(timm="vit_tiny_patch16_224", args=VIT), num_classes, image_size).state_dict()
    save_file(state, path)
    return state


def load(path: Path, num_classes: int = 10, image_size: int = 32) -> dict[str, torch.Tensor]:
    model = ModelSettings(timm="vit_tiny_patch16_224", args=VIT, weights=str(path))
    network = create_model(model, num_classes, image_size)
    load_pretrained_weights(network, model, num_classes, "models.x")
    return network.state_dict()


def test_a_local_file_that_fits_is_loaded_whole(tmp_path: Path) -> None:
    saved = write_weights(tmp_path / "w.safetensors")
    loaded = load(tmp_path / "w.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.items())


def test_another_number_of_classes_keeps_everything_but_the_classifier(tmp_path: Path) -> None:
    saved = write_weights(tmp_path / "w.safetensors", num_classes=1000)
    loaded = load(tmp_path / "w.safetensors")
    assert all(torch.equal(loaded[name], saved[name]) for name in saved if not name.startswith("head."))


def test_position_embeddings_are_resampled_to_another_image_size(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.safetensors", image_size=16)
    assert load(tmp_path / "w.safetensors", image_size=32)["pos_embed"].shape[1] == 1 + 16


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_file(create_model(ModelSettings(timm="resnet10t"), 10, 32).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"models\.x\.weights: .*w\.safetensors does not fit the network"):
        load(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("w.pth", b"anything", "is not a .safetensors file; other formats can carry code"),
        ("w.safetensors", b"\x10\0\0\0\0\0\0\0nonsense", "is not a readable safetensors file"),
        ("w.safetensors", None, "does not exist"),
    ],
)
def test_a_file_that_is_no_safetensors_is_refused(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        load(tmp_path / name)


def test_without_a_hub_the_sentence_names_both_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = ModelSettings(timm="resnet10t", pretrained=True)
    with pytest.raises(UserError) as error:
        load_pretrained_weights(create_model(model, 10, 32), model, 10, "models.x")
    assert "models.x.weights" in str(error.value)
    assert "models.x.pretrained to false" in str(error.value)


def test_pretrained_networks_keep_the_normalisation_of_their_weights() -> None:
    own = ((0.1, 0.1, 0.1), (0.2, 0.2, 0.2))
    assert normalisation(ModelSettings(timm="resnet18"), *own) == own
    assert normalisation(ModelSettings(timm="resnet18", pretrained=True), *own)[0] == (0.485, 0.456, 0.406)
