"""Saliency maps of served models, as PNG over the image."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vit_vs_cnn.core.errors import NotApplicableError
from vit_vs_cnn.evaluation.faithfulness import Areas
from vit_vs_cnn.explain.attention import explain_attention
from vit_vs_cnn.explain.faithfulness import PerturbedImage, blank_colour
from vit_vs_cnn.explain.gradcam import cam_layer, grad_cam
from vit_vs_cnn.explain.overlay import overlay
from vit_vs_cnn.registry.loading import RegisteredModel
from vit_vs_cnn.report.grid import resized

_SIDE = 384
# Half the steps of the report, so that a person need not wait: 54 images for the model to call.
_STEPS = 8


@dataclass(frozen=True)
class SaliencyMap:
    """The kind of map, a PNG of it over the image, and the image perturbed in its order.

    `variants`, uint8 (V, S, S, 3), are the perturbed images with what the network does not see around them.
    """

    kind: str
    png: bytes
    perturbed: PerturbedImage
    variants: NDArray[np.uint8]


def render_saliency(model: RegisteredModel, label: int, images: NDArray[np.uint8]) -> list[SaliencyMap]:
    """The saliency map of one image, uint8 (1, S, S, 3).

    It is attention rollout, or Grad-CAM for `label` where the network has no attention. Raises NotApplicableError
    where it has neither, or where the network cannot be rebuilt.
    """
    network = model.rebuilt.network
    pixels: torch.Tensor = model.rebuilt.preprocess(torch.from_numpy(images))
    try:
        kind, saliency = "attention rollout", explain_attention(network, pixels).rollout[0]
    except NotApplicableError:
        kind, saliency = "Grad-CAM", grad_cam(network, pixels, [label], cam_layer(network, pixels))[0]
    seen = model.rebuilt.preprocess.visible(images)
    file = io.BytesIO()
    Image.fromarray(overlay(resized(seen[0], _SIDE), saliency)).save(file, "PNG")
    perturbed = PerturbedImage(seen[0], saliency, blank_colour(model.rebuilt), np.random.default_rng(0), _STEPS)
    variants = images.repeat(len(perturbed.variants), axis=0)
    part = model.rebuilt.preprocess.visible_part(images.shape[1])
    variants[:, part, part] = perturbed.variants
    return [SaliencyMap(kind, file.getvalue(), perturbed, variants)]


def caution(areas: Areas) -> str | None:
    """A sentence where the map of an image is no better than random orders in both areas, None where it is."""
    beginnings = {
        "better_only_deleted": "Better than a random order of pixels only where they are deleted, not inserted",
        "better_only_inserted": "Better than a random order of pixels only where they are inserted, not deleted",
        "like_random": "No better than a random order of pixels",
    }
    if areas.verdict == "better_than_random":
        return None
    return (
        f"{beginnings[areas.verdict]} (deletion AUC {areas.deletion:.2f}, insertion AUC {areas.insertion:.2f}, random "
        f"orders {areas.random:.2f}): do not read it as evidence."
    )
