"""The self-contained model: raw uint8 images in, class probabilities out, as an MLflow model without pickle."""

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vit_vs_cnn.models.trained import TrainedModel


class ServedModel(nn.Module):
    """Preprocessing, network and softmax in one: uint8 (N, H, W, 3) to probabilities float32 (N, K)."""

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.preprocess = trained.preprocess
        self.network = trained.network

    def forward(self, images: Tensor) -> Tensor:
        """Class probabilities of a batch of any size."""
        logits: Tensor = self.network(self.preprocess(images))
        return logits.float().softmax(dim=1)


def export_model(
    trained: TrainedModel, example: NDArray[np.uint8], folder: Path, classes: Sequence[str], name: str, timm_name: str
) -> None:
    """Write `trained` into `folder` as an MLflow PyTorch model in the `pt2` format.

    `example` are at least two uint8 images (N, H, W, 3): the exporter would fix the size of a batch of one. Class
    names and the architecture are in the model's metadata; only mlflow and torch are needed to load it.
    """
    import mlflow.pytorch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    served = ServedModel(trained).eval()
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *example.shape[1:]))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(classes)))]),
    )
    if folder.exists():
        shutil.rmtree(folder)
    with torch.no_grad(), warnings.catch_warnings():
        # About buffers that are views of each other; the tests compare the result with the original.
        warnings.filterwarnings("ignore", message="No complete tensor found")
        mlflow.pytorch.save_model(
            served,
            str(folder),
            signature=signature,
            input_example=example,
            serialization_format="pt2",
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", f"mlflow=={mlflow.__version__}", "numpy"],
            metadata={"classes": list(classes), "contestant": name, "timm": timm_name},
        )
