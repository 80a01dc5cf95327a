"""The self-contained model: raw uint8 images in, class probabilities out, as an MLflow model without pickle."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.core.errors import UserError, first_line
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.models.trained import TrainedModel


def export_model(
    trained: TrainedModel,
    contestant: str,
    model: ModelSettings,
    info: DatasetInfo,
    example: NDArray[np.uint8],
    folder: Path,
) -> None:
    """Write a contestant into `folder` as an MLflow PyTorch model in the `pt2` format.

    `example` are at least two uint8 images (N, H, W, 3): the exporter would fix the size of a batch of one. Only mlflow
    and torch are needed to load the model, on any device; it refuses images of another dtype or shape. Its metadata
    has the class names, how files become images, and what is needed to rebuild the timm network.
    """
    import mlflow.pytorch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *example.shape[1:]))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(info.classes)))]),
    )
    if folder.exists():
        shutil.rmtree(folder)
    with torch.no_grad(), warnings.catch_warnings():
        # About buffers that are views of each other; the tests compare the result with the original.
        warnings.filterwarnings("ignore", message="No complete tensor found")
        mlflow.pytorch.save_model(
            trained.eval(),
            str(folder),
            signature=signature,
            input_example=example,
            serialization_format="pt2",
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", f"mlflow=={mlflow.__version__}", "numpy"],
            metadata={
                "classes": list(info.classes),
                "contestant": contestant,
                "timm": model.timm,
                "image_size": info.image_size,
                "decoding": info.decoding.model_dump(mode="json"),
                "settings": model.model_dump(mode="json"),
                "preprocess": {"interpolation": trained.preprocess.interpolation, "crop": trained.preprocess.crop},
            },
        )
        _unbind_program(folder / "data" / "model.pt2")
    _load_on_cpu_by_default(folder)


def load_program(folder: Path, device: torch.device) -> nn.Module:
    """Load the program of an exported model, a function from uint8 images to probabilities, on `device`."""
    import mlflow.pytorch

    program: nn.Module = mlflow.pytorch.load_model(str(folder))
    return program.to(device)


def load_trained_program(folder: Path, device: torch.device) -> nn.Module:
    """Load the program that the training in `folder` exported. Raises UserError where it is missing or damaged."""
    try:
        return load_program(folder / "model", device)
    # Of files that are cut off, empty or of another version of PyTorch, its loaders raise almost anything.
    except Exception as error:
        raise UserError(
            f"{folder / 'model'}: the exported model does not load ({first_line(error)}); "
            f"`dvc checkout --force {folder}` restores it, or "
            f"`dvc repro --force train@{folder.parent.name}-{folder.name}` makes it again."
        ) from None


def _unbind_program(path: Path) -> None:
    """Let the program run on every device: the exporter has it insist on the one that it was exported on.

    What it insists on beside that stays: it refuses images that are not uint8.
    """
    program = torch.export.load(path)
    for node in program.graph.nodes:
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            node.kwargs = {key: value for key, value in node.kwargs.items() if key != "device"}
    program.graph_module.recompile()
    torch.export.save(program, path)


def _load_on_cpu_by_default(folder: Path) -> None:
    """Where there is a GPU MLflow would ask for it, and then refuse the model because its weights are on the CPU."""
    from mlflow.models import Model

    description = Model.load(str(folder))
    description.flavors["python_function"]["config"]["device"] = "cpu"
    description.save(str(folder / "MLmodel"))
