"""A version of a registered model, loaded: a function from pixels to probabilities, and what is known of it."""

import json
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.core.errors import TransientError, UserError
from vit_vs_cnn.tracking.store import open_client, store_errors, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import Model

BATCH = 64


@dataclass(frozen=True, eq=False)
class RegisteredModel:
    """Version `version` of the registered model `name`, in memory.

    `program` takes uint8 (N, S, S, 3) with S = `image_size` and gives float32 (N, K) for the K `classes`. `settings`
    are those of its network, None where the version was registered without them.
    """

    name: str
    version: int
    contestant: str
    classes: tuple[str, ...]
    image_size: int
    settings: ModelSettings | None
    program: nn.Module
    device: torch.device

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities float32 (N, K) of uint8 images (N, S, S, 3)."""
        with torch.inference_mode():
            parts = [
                self.program(torch.from_numpy(images[start : start + BATCH]).to(self.device)).cpu().numpy()
                for start in range(0, len(images), BATCH)
            ]
        return np.concatenate(parts)


def version_of(name: str, model: str) -> int:
    """The version of the registered model `name` that `model` means: an alias, or the version itself.

    Raises UserError where there is none, TransientError where the registry cannot be reached.
    """
    client = open_client()
    if model.isdecimal():
        return int(model)
    try:
        aliases = client.get_registered_model(name).aliases
    except store_errors() as error:
        raise TransientError(f"the registry at {tracking_uri()} cannot be used ({first_line(error)}).") from None
    if model not in aliases:
        there_are = ", ".join(sorted(aliases)) or "none"
        raise UserError(f"{name} has no alias {model!r}, it has {there_are}: name one with --model, or a version.")
    return int(aliases[model])


def load_registered(name: str, version: int, device: torch.device | None = None) -> RegisteredModel:
    """The version in memory on `device` (None: the GPU where there is one), and run once.

    Raises UserError where there is no such version or it is no image classifier of this project, TransientError where
    the registry cannot be reached.
    """
    # A version that somebody registered as a pickle could run code here.
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    client = open_client()
    import mlflow
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as folder:
        _require_version(client, name, version)
        try:
            path = mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=folder)
        except store_errors() as error:
            raise TransientError(f"{name} version {version} cannot be fetched ({first_line(error)}).") from None
        try:
            loaded = _described(name, version, Model.load(path), mlflow.pytorch.load_model(path), device)
            loaded.probabilities(np.zeros((2, loaded.image_size, loaded.image_size, 3), np.uint8))
        # What somebody else registered can fail to load, or to run, in any way.
        except Exception as error:
            raise UserError(
                f"{name} version {version} cannot be used: it is not one that this project exported "
                f"({first_line(error)})."
            ) from None
    return loaded


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")


def _described(
    name: str, version: int, description: "Model", program: nn.Module, device: torch.device | None
) -> RegisteredModel:
    metadata: dict[str, Any] = description.metadata or {}
    # Versions from before the metadata had the size tell it by their signature.
    side: Any = metadata.get("image_size") or description.signature.inputs.inputs[0].shape[1]
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return RegisteredModel(
        name=name,
        version=version,
        contestant=str(metadata["contestant"]),
        classes=tuple(str(each) for each in metadata["classes"]),
        image_size=int(side),
        settings=_settings(metadata),
        program=program.to(device),
        device=device,
    )


def _settings(metadata: dict[str, Any]) -> ModelSettings | None:
    try:
        return ModelSettings.model_validate_json(json.dumps(metadata["settings"]))
    except (KeyError, ValidationError):
        return None


def _require_version(client: "MlflowClient", name: str, version: int) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_model_version(name, str(version))
    except store_errors() as error:
        if isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise UserError(f"{name} has no version {version} in {tracking_uri()}.") from None
        raise TransientError(f"the registry at {tracking_uri()} cannot be used ({first_line(error)}).") from None
