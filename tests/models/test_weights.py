"""Weights in timm's layout, with random values, from a local file and from a hub on this machine."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import mlflow
import numpy as np
import pytest
import timm
import torch
from huggingface_hub import close_session, constants
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from timm.models import _registry

from vit_vs_cnn.config.schema import ModelSettings, Settings
from vit_vs_cnn.core.errors import TransientError, UserError
from vit_vs_cnn.core.paths import PREPARED, trained
from vit_vs_cnn.data.dataset import DatasetInfo, read_split
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.models.trained import load_trained, preprocess_for
from vit_vs_cnn.models.weights import load_pretrained_weights, pretraining
from vit_vs_cnn.stages import train
from vit_vs_cnn.training.results import read_summary

TAGGED = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
NOWHERE = "http://127.0.0.1:9"
VIT = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}

State = dict[str, torch.Tensor]


def write_weights(path: Path, image_size: int = 32, num_classes: int = 10) -> State:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = create_model(ModelSettings(timm="vit_tiny_patch16_224", args=VIT), num_classes, image_size).state_dict()
    save_file(state, path)
    return state


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def have_hub_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    close_session()  # which knows the proxies of the time when it was opened


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub on this machine, and the file that it serves as the weights of TAGGED."""
    root = tmp_path / "hub"

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._send(with_content=False)

        def do_GET(self) -> None:
            self._send(with_content=True)

        def _send(self, *, with_content: bool) -> None:
            file = root / urlsplit(self.path).path.lstrip("/").replace("/resolve/main/", "/")
            content = file.read_bytes() if file.is_file() else b""
            self.send_response(200 if content else 404)
            if not content:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("ETag", '"0123"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_content:
                self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    with serving(Hub) as address:
        have_hub_at(address, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield root / "timm" / TAGGED / "model.safetensors"
        close_session()


def load(path: Path, num_classes: int = 10, image_size: int = 32) -> State:
    """Load from the local file `path`."""
    return loaded(ModelSettings(timm="vit_tiny_patch16_224", args=VIT, weights=str(path)), num_classes, image_size)


def load_from_hub(path: Path, num_classes: int = 10, image_size: int = 32) -> State:
    """Load from the hub that serves `path`."""
    assert path.is_file()
    return loaded(ModelSettings(timm=TAGGED, args=VIT, pretrained=True), num_classes, image_size)


def loaded(model: ModelSettings, num_classes: int, image_size: int) -> State:
    network = create_model(model, num_classes, image_size)
    load_pretrained_weights(network, model, "models.x")
    return network.state_dict()


both = pytest.mark.parametrize("load", [load, load_from_hub])


@both
def test_weights_that_fit_are_loaded_whole(hub: Path, load: Callable[..., State]) -> None:
    saved = write_weights(hub)
    state = load(hub)
    assert all(torch.equal(state[name], tensor) for name, tensor in saved.items())


@both
def test_another_number_of_classes_keeps_everything_but_the_classifier(hub: Path, load: Callable[..., State]) -> None:
    saved = write_weights(hub, num_classes=1000)
    state = load(hub)
    assert all(torch.equal(state[name], saved[name]) for name in saved if not name.startswith("head."))
    assert state["head.weight"].shape == (10, 24)


@both
def test_position_embeddings_are_resampled_to_another_image_size(hub: Path, load: Callable[..., State]) -> None:
    saved = write_weights(hub, image_size=16)
    state = load(hub, image_size=32)
    assert state["pos_embed"].shape[1] == 1 + 16
    # Each embedding stays near its place; random values would not.
    grid, resampled = (
        positions[0, 1:].T.reshape(24, side, side)
        for positions, side in ((saved["pos_embed"], 2), (state["pos_embed"], 4))
    )
    shrunk = torch.nn.functional.interpolate(resampled[None], (2, 2), mode="area")[0]
    assert torch.corrcoef(torch.stack([grid.flatten(), shrunk.flatten()]))[0, 1] > 0.95


@both
@pytest.mark.parametrize("num_classes", [10, 1000])
def test_missing_and_extra_keys_are_named_whatever_the_classifier(
    hub: Path, load: Callable[..., State], num_classes: int
) -> None:
    state = write_weights(hub, num_classes=num_classes)
    state["blocks.7.norm1.weight"] = state.pop("blocks.0.norm1.weight")
    save_file(state, hub)
    with pytest.raises(UserError) as error:
        load(hub)
    assert str(error.value).startswith("models.x.")
    assert "blocks.0.norm1.weight is missing; blocks.7.norm1.weight is not in the network" in str(error.value)


@both
def test_weights_of_another_architecture_are_refused(hub: Path, load: Callable[..., State]) -> None:
    hub.parent.mkdir(parents=True)
    save_file(create_model(ModelSettings(timm="resnet10t"), 10, 32).state_dict(), hub)
    with pytest.raises(
        UserError, match=r"models\.x\.(weights: .*model\.safetensors|pretrained: .*) does not fit the netw"
    ):
        load(hub)


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
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = ModelSettings(timm="resnet10t", pretrained=True)
    with pytest.raises(UserError) as error:
        load_pretrained_weights(create_model(model, 10, 32), model, "models.x")
    assert f"the weights of resnet10t cannot be had from {NOWHERE} (" in str(error.value)
    assert "models.x.weights" in str(error.value)
    assert "models.x.pretrained to false" in str(error.value)


def test_weights_that_are_here_under_a_name_of_their_own_need_no_hub(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = replace(timm.get_pretrained_cfg(TAGGED), hf_hub_filename="vit.safetensors")
    monkeypatch.setitem(_registry._model_pretrained_cfgs, TAGGED, named)
    file = hub.with_name("vit.safetensors")
    saved = write_weights(file)
    load_from_hub(file)
    have_hub_at(NOWHERE, monkeypatch)
    assert torch.equal(load_from_hub(file)["pos_embed"], saved["pos_embed"])


def test_behind_a_proxy_the_hub_need_not_be_reached_from_here(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = write_weights(hub)
    monkeypatch.setenv("http_proxy", constants.ENDPOINT)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    have_hub_at("http://hub.invalid", monkeypatch)
    assert torch.equal(load_from_hub(hub)["pos_embed"], saved["pos_embed"])


def test_a_lost_connection_is_one_sentence_and_may_be_tried_again(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            """End the connection without an answer."""

    write_weights(hub)
    with serving(Silent) as address:
        have_hub_at(address, monkeypatch)
        with pytest.raises(TransientError) as error:
            load_from_hub(hub)
    assert f"models.x.pretrained: the weights of {TAGGED} cannot be had from {address} (" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_architecture_without_published_weights_is_said_to_have_none() -> None:
    model = ModelSettings(timm="airbench94", pretrained=True)
    with pytest.raises(UserError, match=r"models\.x\.pretrained: timm knows no pretrained weights for airbench94"):
        load_pretrained_weights(create_model(model, 10, 32), model, "models.x")


def test_a_damaged_file_of_the_hub_is_one_sentence(hub: Path) -> None:
    hub.parent.mkdir(parents=True)
    hub.write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")
    with pytest.raises(UserError, match=rf"models\.x\.pretrained: the weights of {TAGGED} cannot be read"):
        load_from_hub(hub)


def reference(name: str, images: np.ndarray, crop: float) -> torch.Tensor:
    """What timm itself makes of images for the checkpoint `name` at 32 px, through Pillow."""
    checkpoint = timm.get_pretrained_cfg(name).to_dict()
    config = resolve_data_config({"input_size": (3, 32, 32), "crop_pct": crop}, pretrained_cfg=checkpoint)
    transform = create_transform(**config)
    return torch.stack([transform(Image.fromarray(image)) for image in images])


@pytest.mark.parametrize(
    ("name", "image_size", "crop"),
    [
        (TAGGED, 16, 1.0),  # enlarged: the whole image, although the checkpoint crops
        ("resnet10t", 32, 1.0),
        ("resnet10t", 36, 0.875),
        ("resnet10t", 90, 0.875),
        ("resnet18.fb_swsl_ig1b_ft_in1k", 64, 0.875),  # bilinear
        ("resnet18.a1_in1k", 64, 0.95),
    ],
)
def test_pixels_are_those_that_the_checkpoint_was_trained_on(
    prepared: DatasetInfo, name: str, image_size: int, crop: float
) -> None:
    info = prepared.model_copy(update={"image_size": image_size})
    images = np.random.default_rng(0).integers(0, 256, (3, image_size, image_size, 3), dtype=np.uint8)
    preprocess = preprocess_for(ModelSettings(timm=name, pretrained=True, input_size=32), info)
    got, expected = preprocess(torch.from_numpy(images)), reference(name, images, crop)
    # Pillow rounds, and cuts off at black and white, after each of two passes: on noise that is some grey levels.
    grey_levels = (got - expected).abs() * preprocess.std
    assert float(grey_levels.mean()) < 0.5
    assert float(grey_levels.max()) < 20
    assert preprocess.crop == crop


def test_without_pretraining_the_data_set_s_own_normalisation_is_used(prepared: DatasetInfo) -> None:
    own = preprocess_for(ModelSettings(timm="resnet18"), prepared)
    assert torch.allclose(own.mean.flatten() / 255, torch.tensor(prepared.mean))
    assert (own.interpolation, own.crop, own.input_size) == ("bilinear", 1.0, prepared.image_size)


@pytest.mark.parametrize(
    ("model", "data", "images"),
    [
        ({"timm": "resnet18"}, "none", 0),
        ({"timm": "resnet18", "pretrained": True}, "ImageNet-1k", 1_281_167),
        ({"timm": "resnet18.a1_in1k", "weights": "w.safetensors"}, "ImageNet-1k", 1_281_167),
        ({"timm": "resnet18", "weights": "w.safetensors"}, "unknown", None),
        ({"timm": TAGGED, "pretrained": True}, "ImageNet-21k, ImageNet-1k", 14_197_122),
        # 38 million merged images, and only then ImageNet.
        (
            {"timm": "eva02_base_patch14_448.mim_in22k_ft_in1k", "pretrained": True},
            "ImageNet-21k, ImageNet-1k",
            14_197_122,
        ),
        ({"timm": "eva02_large_patch14_448.mim_m38m_ft_in1k", "pretrained": True}, "unknown", None),
        ({"timm": "airbench94", "weights": "w.safetensors"}, "unknown", None),
    ],
)
def test_the_tag_says_what_the_weights_were_trained_on(model: dict[str, object], data: str, images: int | None) -> None:
    seen_before = pretraining(ModelSettings.model_validate(model))
    assert (seen_before.data, seen_before.images) == (data, images)


def test_a_checkpoint_of_the_hub_goes_all_the_way_into_the_exported_model(
    hub: Path, make_settings: Callable[..., Settings], prepared: DatasetInfo
) -> None:
    saved = write_weights(hub, image_size=16, num_classes=1000)
    # Steps too small to change anything.
    vit = {"timm": TAGGED, "pretrained": True, "input_size": 32, "args": VIT, "recipe": {"optimizer": {"lr": 1e-12}}}
    settings = make_settings({"models": {"vit": vit}, "train": {"epochs": 1}, "recipe": {"schedule": {"min_lr": 0.0}}})
    train.run(settings, "vit", 0)
    model = load_trained(settings, "vit", 0, prepared)
    network = model.network
    kept = {
        name: tensor for name, tensor in network.state_dict().items() if not name.startswith(("head.", "pos_embed"))
    }
    assert all(torch.allclose(tensor, saved[name], atol=1e-6) for name, tensor in kept.items())
    images = read_split(PREPARED, "val").images
    exported = mlflow.pyfunc.load_model(str(trained("vit", 0) / "model"))
    with torch.no_grad():
        logits = network(reference(TAGGED, images, crop=1.0))
        expected = (logits / model.temperature).softmax(dim=1)
    np.testing.assert_allclose(exported.predict(images), expected, atol=0.01)
    assert exported.metadata.metadata["preprocess"] == {"interpolation": "bicubic", "crop": 1.0}
    assert read_summary(trained("vit", 0)).pretraining_data == "ImageNet-21k, ImageNet-1k"
    assert json.loads((trained("vit", 0) / "training.json").read_text())["pretraining_images"] == 14_197_122
