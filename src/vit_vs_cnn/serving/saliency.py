"""What the model looked at in one image, as a picture."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.explain.attention import explain_attention
from vit_vs_cnn.explain.gradcam import cam_layer, grad_cam
from vit_vs_cnn.explain.overlay import overlay
from vit_vs_cnn.models.build import create_model, input_size
from vit_vs_cnn.models.preprocess import Preprocess
from vit_vs_cnn.models.trained import TrainedModel
from vit_vs_cnn.registry.loading import RegisteredModel
from vit_vs_cnn.report.grid import resized

_SIDE = 384


@dataclass(frozen=True)
class Picture:
    """A PNG, and in words what it shows."""

    kind: str
    png: bytes


class SaliencyRenderer:
    """Paints for versions of one registered model.

    The network of the version that was asked last is kept; it is built anew, as an exported program has no layers.
    """

    def __init__(self) -> None:
        self._version: int | None = None
        self._trained: TrainedModel | None = None

    def paint(self, model: RegisteredModel, image: NDArray[np.uint8], label: int) -> Picture:
        """Why `model` may say class `label` of the image uint8 (S, S, 3): attention where it has it, else Grad-CAM.

        Raises NotApplicableError where the model gives no picture.
        """
        if self._trained is None or self._version != model.version:
            self._version, self._trained = model.version, rebuilt(model)
        network = self._trained.network
        pixels: torch.Tensor = self._trained.preprocess(torch.from_numpy(image[None]))
        try:
            kind, heat = "attention rollout", explain_attention(network, pixels).rollout[0]
        except NotApplicableError:
            kind, heat = "Grad-CAM", grad_cam(network, pixels, [label], cam_layer(network, pixels))[0]
        file = io.BytesIO()
        Image.fromarray(overlay(resized(image, _SIDE), heat)).save(file, "PNG")
        return Picture(kind, file.getvalue())


def rebuilt(model: RegisteredModel) -> TrainedModel:
    """The timm network of a registered version with its weights, on the CPU.

    Raises NotApplicableError where the version does not say how it is built.
    """
    if model.settings is None:
        raise NotApplicableError(
            f"{model.name} version {model.version} was registered without the settings of its network: predictions "
            "work, the picture is left out."
        )
    state = {key: value.cpu() for key, value in model.program.state_dict().items()}
    network = create_model(model.settings, len(model.classes), model.image_size)
    prefix = "network."
    network.load_state_dict({key.removeprefix(prefix): each for key, each in state.items() if key.startswith(prefix)})
    buffers = dict(model.program.named_buffers())
    mean, std = ((buffers[f"preprocess.{each}"].flatten() / 255).tolist() for each in ("mean", "std"))
    return TrainedModel(network.eval(), Preprocess(mean, std, input_size(model.settings, model.image_size)))
