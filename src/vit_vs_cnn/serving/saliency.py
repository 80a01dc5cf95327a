"""Saliency maps of served models, as PNG over the image."""

import io

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


class SaliencyRenderer:
    """Renders saliency maps for versions of one registered model.

    An exported program has no layers, so the network is rebuilt from the version's settings; the last one is kept.
    """

    def __init__(self) -> None:
        self._version: int | None = None
        self._trained: TrainedModel | None = None

    def render(self, model: RegisteredModel, label: int, images: NDArray[np.uint8]) -> list[tuple[str, bytes]]:
        """The kind of map and a PNG of it over the image, for one image, uint8 (1, S, S, 3).

        It is attention rollout, or Grad-CAM for `label` where the network has no attention. Raises NotApplicableError
        where it has neither.
        """
        if self._trained is None or self._version != model.version:
            self._version, self._trained = model.version, rebuild_network(model)
        network = self._trained.network
        pixels: torch.Tensor = self._trained.preprocess(torch.from_numpy(images))
        try:
            kind, saliency = "attention rollout", explain_attention(network, pixels).rollout[0]
        except NotApplicableError:
            kind, saliency = "Grad-CAM", grad_cam(network, pixels, [label], cam_layer(network, pixels))[0]
        file = io.BytesIO()
        Image.fromarray(overlay(resized(images[0], _SIDE), saliency)).save(file, "PNG")
        return [(kind, file.getvalue())]


def rebuild_network(model: RegisteredModel) -> TrainedModel:
    """The timm network of a registered version with its weights, on the CPU.

    Raises NotApplicableError where the version has no settings of its network.
    """
    if model.settings is None:
        raise NotApplicableError(
            f"The saliency map is skipped: {model.name} version {model.version} was registered without the settings "
            "of its network. Predictions work."
        )
    prefix = "network."
    state = {
        key.removeprefix(prefix): value.cpu()
        for key, value in model.program.state_dict().items()
        if key.startswith(prefix)
    }
    network = create_model(model.settings, len(model.classes), model.image_size)
    network.load_state_dict(state)
    buffers = dict(model.program.named_buffers())
    mean, std = ((buffers[f"preprocess.{name}"].flatten() / 255).tolist() for name in ("mean", "std"))
    # The programs of release 0.1 have no temperature.
    temperature = float(buffers.get("temperature", 1.0))
    preprocess = Preprocess(mean, std, input_size(model.settings, model.image_size))
    return TrainedModel(network.eval(), preprocess, temperature)
