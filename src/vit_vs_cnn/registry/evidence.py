"""What the gate judges: how versions did on the same test images, as recorded or else measured again."""

from collections.abc import Sequence
from pathlib import Path

import torch

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import DatasetInfo, Split, read_info, read_split
from vit_vs_cnn.evaluation.calibration import expected_calibration_error, reliability_table
from vit_vs_cnn.evaluation.results import Predictions, read_evaluation
from vit_vs_cnn.registry.gate import Evidence
from vit_vs_cnn.registry.loading import RegisteredModel, load_registered
from vit_vs_cnn.registry.versions import Registry, Version


def on_same_images(versions: Sequence[Version]) -> bool:
    """Whether the versions were evaluated on the same test images."""
    return len({version.test_digest for version in versions}) == 1


def judged_digest(versions: Sequence[Version], prepared: Path) -> str:
    """The digest of the test images that `collect` judges the versions on. Raises UserError where there are none."""
    if on_same_images(versions):
        return versions[0].test_digest
    info, _ = _test_split(prepared, versions[0])
    return info.splits["test"].digest


def collect(registry: Registry, versions: Sequence[Version], prepared: Path) -> list[Evidence]:
    """The evidence on each version, all on the same test images.

    The recorded predictions where they are of the same images, otherwise predictions for the test split in the folder
    `prepared`. Raises UserError where there is none, or one of other classes or another image size.
    """
    evidence = []
    for version in versions:
        if on_same_images(versions):
            with registry.artifacts(version, "evaluation") as folder:
                evaluation = read_evaluation(folder)
            classes, predictions = evaluation.classes, evaluation.predictions
        else:
            info, test = _test_split(prepared, versions[0])
            model = load_registered(registry.name, version.number, torch.device("cpu"))
            classes, predictions = info.classes, predict_test(model, info, test)
        reliability = reliability_table(predictions.probabilities, predictions.labels)
        evidence.append(
            Evidence(
                classes=classes,
                predictions=predictions,
                calibration_error=expected_calibration_error(reliability),
                # The cost does not depend on the images: it stays the one that was measured after training.
                latency_p95_ms=version.metric("latency_p95_ms") or float("nan"),
                size_mb=version.metric("size_mb") or float("nan"),
            )
        )
    return evidence


def predict_test(model: RegisteredModel, info: DatasetInfo, test: Split) -> Predictions:
    """The model's predictions for the test split, with a progress bar.

    Raises UserError where the model has other classes, or takes images of another size or decoded in another way.
    """
    if model.classes != info.classes:
        raise UserError(f"version {model.version} has the classes {', '.join(model.classes)}; {info.name} has others.")
    if model.image_size != info.image_size:
        raise UserError(
            f"version {model.version} takes images of {model.image_size} px; {info.name} has {info.image_size} px."
        )
    if not model.decoding.agrees_with(info.decoding):
        raise UserError(
            f"version {model.version} takes images with {model.decoding}; those of {info.name} have {info.decoding}: "
            "prepare them in the same way (data.fit, data.channels, data.bit_depth)."
        )
    probabilities = model.probabilities(test.images, f"version {model.version}")
    return Predictions(test.names, test.labels, probabilities.argmax(axis=1), probabilities)


def _test_split(prepared: Path, version: Version) -> tuple[DatasetInfo, Split]:
    try:
        return read_info(prepared), read_split(prepared, "test")
    except UserError:
        raise UserError(
            f"version {version.number} was evaluated on other test images than the champion, and {prepared} has none "
            "to measure both on; name a folder of prepared data, e.g. --data runs/NAME/data/prepared."
        ) from None
