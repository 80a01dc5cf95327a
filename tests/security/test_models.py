"""A model file is a program: nothing of a version is loaded unless this installation signed it."""

import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
import yaml

from harness.model_server import NAME, Store
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.registry.loading import load_registered, trust
from vit_vs_cnn.registry.signing import KEY_VARIABLE, key_file, signature_tags
from vit_vs_cnn.registry.versions import Registry

pytest_plugins = ["harness.serving_fixtures"]


@pytest.fixture(autouse=True)
def _in_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)


@pytest.fixture
def model(store: Store, tmp_path: Path) -> Path:
    """A copy of a model that this project exported."""
    return Path(shutil.copytree(store.client.get_model_version(NAME, "1").source, tmp_path / "model"))


def register(store: Store, model: Path, tags: dict[str, str] | None = None) -> int:
    return int(store.client.create_model_version(NAME, source=str(model), tags=tags).version)


def names_code(model: Path) -> None:
    """MLflow would put this folder on the import path."""
    (model / "code").mkdir()
    describe(model, lambda flavors: flavors["pytorch"].update(code="code"))


def names_a_module_for_pickles(model: Path) -> None:
    (model / "data/pickle_module_info.txt").write_text("evil")


def names_a_loader(model: Path) -> None:
    describe(model, lambda flavors: flavors["python_function"].update(loader_module="evil"))


def lies_elsewhere(model: Path) -> None:
    describe(model, lambda flavors: flavors["pytorch"].update(model_data="../elsewhere"))


def has_a_flavor_more(model: Path) -> None:
    describe(model, lambda flavors: flavors.update(sklearn={"pickled_model": "model.pkl"}))


def has_no_description(model: Path) -> None:
    (model / "MLmodel").write_text("{")


def is_a_pickle(model: Path) -> None:
    shutil.rmtree(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
        mlflow.pytorch.save_model(torch.nn.Identity(), model, serialization_format="pickle", pip_requirements=["torch"])


def describe(model: Path, change: Callable[[dict[str, Any]], None]) -> None:
    description = yaml.safe_load((model / "MLmodel").read_text())
    change(description["flavors"])
    (model / "MLmodel").write_text(yaml.safe_dump(description))


FOREIGN = [
    names_code,
    names_a_module_for_pickles,
    names_a_loader,
    lies_elsewhere,
    has_a_flavor_more,
    has_no_description,
    is_a_pickle,
]


@pytest.mark.parametrize("change", FOREIGN, ids=lambda change: change.__name__)
def test_what_this_project_does_not_export_is_neither_loaded_nor_signed(
    store: Store, model: Path, change: Callable[[Path], None]
) -> None:
    tags = signature_tags(model)
    change(model)
    version = register(store, model, tags)
    with pytest.raises(UserError, match=f"{NAME} version {version} cannot be used: it is not one that this project"):
        load_registered(NAME, version)
    with pytest.raises(UserError, match=f"{NAME} version {version} cannot be trusted: it is not one that this"):
        trust(Registry(NAME), version)


def test_a_program_that_nobody_signed_is_not_loaded_until_somebody_trusts_it(store: Store, model: Path) -> None:
    version = register(store, model)
    with pytest.raises(UserError, match=f"`vit-vs-cnn registry trust {version} --registry {NAME}`"):
        load_registered(NAME, version)
    trust(Registry(NAME), version)
    assert load_registered(NAME, version).version == version


def changed(program: Path) -> None:
    content = program.read_bytes()
    program.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def cut_off(program: Path) -> None:
    program.write_bytes(program.read_bytes()[:1000])


def missing(program: Path) -> None:
    program.unlink()


@pytest.mark.parametrize("change", [changed, cut_off, missing])
def test_a_program_that_was_changed_after_it_was_signed_is_not_loaded(
    store: Store, model: Path, change: Callable[[Path], None]
) -> None:
    version = register(store, model, signature_tags(model))
    change(model / "data/model.pt2")
    with pytest.raises(UserError, match="somebody changed them, or the disk did"):
        load_registered(NAME, version)


def test_another_installations_signature_does_not_count_unless_they_share_the_key(
    store: Store, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared-key"
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv(KEY_VARIABLE, str(shared))
        tags = signature_tags(model)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o600
    version = register(store, model, tags)
    with pytest.raises(UserError, match="it is not signed with the key in"):
        load_registered(NAME, version)
    monkeypatch.setenv(KEY_VARIABLE, str(shared))
    assert key_file() == shared
    assert load_registered(NAME, version).version == version
