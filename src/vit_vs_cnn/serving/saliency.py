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
from vit_vs_cnn.registry.loading import RegisteredModel
from vit_vs_cnn.report.grid import resized

_SIDE = 384


def render_saliency(model: RegisteredModel, label: int, images: NDArray[np.uint8]) -> list[tuple[str, bytes]]:
    """The kind of map and a PNG of it over the image, for one image, uint8 (1, S, S, 3).

    It is attention rollout, or Grad-CAM for `label` where the network has no attention. Raises NotApplicableError
    where it has neither, or where the network cannot be rebuilt.
    """
    network = model.rebuilt.network
    pixels: torch.Tensor = model.rebuilt.preprocess(torch.from_numpy(images))
    try:
        kind, saliency = "attention rollout", explain_attention(network, pixels).rollout[0]
    except NotApplicableError:
        kind, saliency = "Grad-CAM", grad_cam(network, pixels, [label], cam_layer(network, pixels))[0]
    file = io.BytesIO()
    Image.fromarray(overlay(resized(images[0], _SIDE), saliency)).save(file, "PNG")
    return [(kind, file.getvalue())]
