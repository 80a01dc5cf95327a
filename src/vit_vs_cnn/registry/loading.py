"""A version of the registered model in memory: a function from pixels to probabilities, and its metadata."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.core.errors import NotApplicableError, UserError, first_line
from vit_vs_cnn.data.dataset import BY_DEFAULT, Decoding
from vit_vs_cnn.evaluation.predict import batch_predict
from vit_vs_cnn.models.build import create_model, input_size
from vit_vs_cnn.models.export import load_program
from vit_vs_cnn.models.preprocess import Preprocess
from vit_vs_cnn.models.trained import TrainedModel
from vit_vs_cnn.registry.signing import require_own_format, require_trusted, signature_tags
from vit_vs_cnn.registry.versions import Registry, Version, registry_errors

BATCH = 64


@dataclass(frozen=True, eq=False)
class RegisteredModel:
    """Version `version` of the registered model `name`, in memory.

    `program` takes uint8 (N, S, S, 3) with S = `image_size` and returns float32 (N, K) for the K `classes`. `settings`
    are those that build its network, None where the version has none; `resizing` are the arguments of its preprocessing
    beside mean, std and size; `decoding` is how it wants image files decoded.
    """

    name: str
    version: int
    contestant: str
    classes: tuple[str, ...]
    image_size: int
    settings: ModelSettings | None
    resizing: Mapping[str, Any]
    program: nn.Module
    device: torch.device
    decoding: Decoding = BY_DEFAULT

    def probabilities(self, images: NDArray[np.uint8], desc: str | None = None) -> NDArray[np.float32]:
        """Class probabilities float32 (N, K) of uint8 images (N, S, S, 3); `desc` names a progress bar."""
        return batch_predict(self.program, images, BATCH, self.device, desc)

    @cached_property
    def rebuilt(self) -> TrainedModel:
        """The timm network with the version's weights, on the CPU: an exported program has no layers to look into.

        Raises NotApplicableError where the version has no settings of its network.
        """
        if self.settings is None:
            raise NotApplicableError(
                f"The saliency map is skipped: {self.name} version {self.version} was registered without the settings "
                "of its network. Predictions work."
            )
        prefix = "network."
        state = {
            key.removeprefix(prefix): value.cpu()
            for key, value in self.program.state_dict().items()
            if key.startswith(prefix)
        }
        network = create_model(self.settings, len(self.classes), self.image_size, in_chans=self.decoding.in_chans)
        network.load_state_dict(state)
        buffers = dict(self.program.named_buffers())
        mean, std = ((buffers[f"preprocess.{name}"].flatten() / 255).tolist() for name in ("mean", "std"))
        # The programs of release 0.1 have no temperature.
        temperature = float(buffers.get("temperature", 1.0))
        preprocess = Preprocess(mean, std, input_size(self.settings, self.image_size), **self.resizing)
        return TrainedModel(network.eval(), preprocess, temperature)


def load_registered(name: str, given: str | int, device: torch.device | None = None) -> RegisteredModel:
    """Load the version with this number or alias on `device` (None: the GPU where there is one), and run it once.

    Raises UserError where there is no such version or it was not signed by this installation, TransientError where the
    registry is unreachable.
    """
    # Beside the check of the signature: MLflow itself refuses pickles then.
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    registry = Registry(name)
    version = registry.version(given)
    unusable = f"{name} version {version.number} cannot be used"
    with tempfile.TemporaryDirectory() as folder:
        path = _download(registry, version, folder)
        try:
            require_trusted(path, version.tags, f"vit-vs-cnn registry trust {version.number} --registry {name}")
        except UserError as error:
            raise UserError(f"{unusable}: {error}.") from None
        try:
            model = load_exported(path, name, version.number, device)
            model.probabilities(np.zeros((2, model.image_size, model.image_size, 3), np.uint8))
        # What was made by a release or a library that fits this one badly can fail to load, or to run, in any way.
        except Exception as error:
            raise UserError(f"{unusable}: it does not load and run here ({first_line(error)}).") from None
    return model


def trust(registry: Registry, given: str | int) -> Version:
    """Sign a version that was registered elsewhere or before there were signatures. Nothing of it is run.

    Raises UserError where there is no such version or it is not of the kind that this project exports.
    """
    version = registry.version(given)
    with tempfile.TemporaryDirectory() as folder, registry_errors():
        path = _download(registry, version, folder)
        try:
            require_own_format(path)
        except UserError as error:
            raise UserError(f"{registry.name} version {version.number} cannot be trusted: {error}.") from None
        registry.tag(version.number, signature_tags(path))
    return version


def _download(registry: Registry, version: Version, folder: str) -> Path:
    import mlflow

    with registry_errors():
        uri = f"models:/{registry.name}/{version.number}"
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))


def load_exported(folder: Path, name: str, version: int, device: torch.device | None = None) -> RegisteredModel:
    """Load the MLflow model that `models.export` wrote into `folder`."""
    from mlflow.models import Model

    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # First, so that a pickle is refused as what it is.
    program = load_program(folder, device)
    description = Model.load(str(folder))
    metadata: dict[str, Any] = description.metadata or {}
    # The first versions had no image size in their metadata, only in their signature.
    image_size: Any = metadata.get("image_size") or description.signature.inputs.inputs[0].shape[1]
    return RegisteredModel(
        name=name,
        version=version,
        contestant=str(metadata["contestant"]),
        classes=tuple(map(str, metadata["classes"])),
        image_size=int(image_size),
        settings=_network_settings(metadata),
        # The first versions were all resized bilinearly and never cropped.
        resizing=metadata.get("preprocess", {}),
        program=program,
        device=device,
        decoding=Decoding.model_validate(metadata.get("decoding", {})),
    )


def _network_settings(metadata: dict[str, Any]) -> ModelSettings | None:
    """The settings that build the network, without the recipe: that of an older version may have other keys."""
    try:
        settings = {key: value for key, value in metadata["settings"].items() if key != "recipe"}
        return ModelSettings.model_validate_json(json.dumps(settings))
    except (KeyError, ValidationError):
        return None
